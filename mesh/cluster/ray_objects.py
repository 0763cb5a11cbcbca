"""Ray's object store: large buffers in transit, and references of users."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
from ray import ObjectRef as ObjectRef

from mesh.settings import settings


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the store, named so that another process of the cluster can borrow it.

    A reference pickled outside a task's arguments would pin the object for the life of this process. So the mesh names
    objects itself: `keep_alive` is the owner's reference, held until the receiver says that it has the object.
    """

    object_id: bytes
    owner: bytes
    status: bytes
    keep_alive: Any = None


def store_buffers(buffers: Sequence[Any]) -> StoredObject:
    """Copy buffers into the node's object store (the one copy on their way). Blocks for the copy."""
    reference = ray.put(list(buffers))
    core_worker = ray._private.worker.global_worker.core_worker
    _, owner, status = core_worker.serialize_object_ref(reference)
    return StoredObject(reference.binary(), owner, status, reference)


def load_buffers(stored: StoredObject, deadline_at_s: float | None = None) -> list[Any]:
    """Map the buffers of a stored object, read-only and without copying on its own node. Blocks.

    Raises TimeoutError at the deadline of the call or after `object_fetch_timeout_s`, and what Ray raises where the
    object's owner or its node is gone.
    """
    timeout_s = settings().payload.object_fetch_timeout_s
    if deadline_at_s is not None:
        timeout_s = max(0.0, min(timeout_s, deadline_at_s - time.monotonic()))
    reference = ray.ObjectRef(stored.object_id, stored.owner, "")
    core_worker = ray._private.worker.global_worker.core_worker
    core_worker.deserialize_and_register_object_ref(stored.object_id, ray.ObjectRef.nil(), stored.owner, stored.status)
    buffers: list[Any] = ray.get(reference, timeout=timeout_s)
    return buffers


def put_object(value: Any) -> ObjectRef[Any]:
    """A reference to a copy of `value` in the store, for Ray tasks and actors. Blocks for the copy.

    Raises RuntimeError in a process without Ray.
    """
    if not ray.is_initialized():  # else Ray would start a cluster here
        raise RuntimeError("References to objects need Ray, to which this process is not connected: call ray.init().")
    return ray.put(value)


def object_future(reference: ObjectRef[Any]) -> Future[Any]:
    """The object's value, once it is there; takes no thread to wait."""
    future: Future[Any] = reference.future()
    return future
