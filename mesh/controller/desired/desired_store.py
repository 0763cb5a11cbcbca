"""The desired state in the cluster's key-value store: written before it is acted on, code and descriptors apart."""

from __future__ import annotations

import hashlib
from typing import Protocol

from mesh.cluster.keys import (
    CODE_PREFIX,
    CONTROLLER_ADDRESS_KEY,
    CONTROLLER_STARTS_KEY,
    DESCRIPTORS_PREFIX,
    STATE_KEY,
)
from mesh.controller.desired.descriptor_sets import digest_of, used_digests
from mesh.v1 import control_pb2


class StoreError(Exception):
    """The KV did not answer. A change may or may not be stored: making it again is safe."""


class KeyValue(Protocol):
    """The cluster's KV, or a dict in tests. Blocking. Every method may raise StoreError, and only that."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def keys(self, prefix: str) -> list[str]: ...


class StateStore:
    """Every method blocks for a few KV round trips."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def load(self) -> control_pb2.DesiredState | None:
        """What was stored last. Code and descriptors that an interrupted change left behind are removed."""
        data = self._kv.get(STATE_KEY)
        if data is None:
            return None
        state = control_pb2.DesiredState.FromString(data)
        self._remove_waste(state)
        return state

    def put_code(self, application: control_pb2.ApplicationSpec) -> None:
        """Move the code of the deployments and the descriptors out of `application` into the KV, under digests."""
        for deployment in application.deployments:
            if not deployment.code:
                continue
            deployment.code_key = CODE_PREFIX + hashlib.sha256(deployment.code).hexdigest()
            self._kv.put(deployment.code_key, deployment.code)
            deployment.ClearField("code")
        if application.descriptors:
            application.descriptors_digest = digest_of(application)
            self._kv.put(DESCRIPTORS_PREFIX + application.descriptors_digest, application.descriptors)
            application.ClearField("descriptors")

    def descriptor_sets(self, state: control_pb2.DesiredState) -> dict[str, bytes]:
        """The stored descriptors of its applications, by digest. Lost ones are left out."""
        found = {digest: self._kv.get(DESCRIPTORS_PREFIX + digest) for digest in used_digests(state)}
        return {digest: data for digest, data in found.items() if data is not None}

    def save(self, state: control_pb2.DesiredState) -> None:
        """Store `state`, then remove what it no longer refers to: a crash in between leaves only waste behind."""
        self._kv.put(STATE_KEY, state.SerializeToString())
        self._remove_waste(state)

    def _remove_waste(self, state: control_pb2.DesiredState) -> None:
        generations = (*state.applications, *state.predecessors)
        referenced = {deployment.code_key for app in generations for deployment in app.deployments}
        referenced.update(DESCRIPTORS_PREFIX + digest for digest in used_digests(state))
        for key in (*self._kv.keys(CODE_PREFIX), *self._kv.keys(DESCRIPTORS_PREFIX)):
            if key not in referenced:
                self._kv.delete(key)

    def count_start(self) -> int:
        """Count the start of a controller. Returns how many have started since the mesh was."""
        starts = int(self._kv.get(CONTROLLER_STARTS_KEY) or 0) + 1
        self._kv.put(CONTROLLER_STARTS_KEY, str(starts).encode())
        return starts

    def put_address(self, address: str) -> None:
        self._kv.put(CONTROLLER_ADDRESS_KEY, address.encode())
