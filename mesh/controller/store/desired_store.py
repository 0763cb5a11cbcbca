"""The desired state in the cluster's key-value store: written before it is acted on, code and descriptors apart."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from google.protobuf.message import DecodeError

from mesh.cluster.keys import (
    CODE_PREFIX,
    CONTROLLER_ADDRESS_KEY,
    CONTROLLER_FAILURE_KEY,
    CONTROLLER_STARTS_KEY,
    DESCRIPTORS_PREFIX,
    EVENTS_KEY,
    NUMBERS_KEY,
    SERVICER_FUNCTIONS_KEY,
    STATE_KEY,
)
from mesh.controller.store.descriptor_sets import digest_of
from mesh.controller.store.state_contents import keys_of, used_digests
from mesh.stored.schema_version import migrated
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")


class StoreError(Exception):
    """The KV did not answer. A change may or may not be stored: making it again is safe."""


class FencedError(StoreError):
    """A newer controller of the mesh has started: this one must not store anything, nor act on any actor."""


class UnreadableStateError(Exception):
    """What was asked for is stored, and no one can say what it is."""


class KeyValue(Protocol):
    """The cluster's KV, or a dict in tests. Blocking. Every method may raise StoreError, and only that."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def keys(self, prefix: str) -> list[str]: ...


class StateStore:
    """Every method blocks for a few KV round trips."""

    def __init__(self, kv: KeyValue, on_fenced: Callable[[], None] = lambda: None) -> None:
        """`on_fenced` ends a controller after which another one has started; it may return in tests only."""
        self._kv = kv
        self._on_fenced = on_fenced
        self.epoch = 0
        """How many controllers of the mesh have started, up to this one. 0: it has not claimed the state."""
        self._has_numbers = False

    def load(self) -> control_pb2.DesiredState | None:
        """What was stored last, in the present form. Code and descriptors that an interrupted change left are removed.

        Raises NewerSchemaError where a newer controller has stored it, and UnreadableStateError.
        """
        data = self._kv.get(STATE_KEY)
        if data is None:
            return None
        try:
            state = migrated(control_pb2.DesiredState.FromString(data), "The stored desired state")
        except DecodeError as error:
            raise UnreadableStateError(
                f"The desired state of the mesh, {STATE_KEY} of the cluster's key-value store ({len(data)} bytes), "
                f"cannot be read: {error}. It is not touched, and replicas that live go on serving. To start again: "
                "mesh.shutdown(), then deploy, or `mesh restore` of a backup."
            ) from error
        # To one that was replaced while it starts, the code of what the newer one is about to store is waste.
        self.check_epoch()
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

    def contents(self, keys: Iterable[str]) -> dict[str, bytes]:
        """What is stored under these keys. Lost ones are left out."""
        found = {key: self._kv.get(key) for key in keys}
        return {key: data for key, data in found.items() if data is not None}

    def servicer_functions(self) -> bytes:
        """What `mesh.start` was given."""
        return self._kv.get(SERVICER_FUNCTIONS_KEY) or b""

    def save(self, state: control_pb2.DesiredState) -> None:
        """Store `state`, then remove what it no longer refers to: a crash in between leaves only waste behind."""
        self.check_epoch()
        self._kv.put(STATE_KEY, state.SerializeToString())
        try:
            self._remove_numbers()
            self._remove_waste(state)
        except StoreError as error:  # the state is stored: a failure would say that it is not
            logger.warning("what the desired state no longer needs is removed with the next change: %s", error)

    def load_numbers(self) -> control_pb2.AutoscaledNumbers:
        """The numbers of replicas that were stored last. They are valid for the version of the state that they name."""
        data = self._kv.get(NUMBERS_KEY)
        self._has_numbers = data is not None
        try:
            return control_pb2.AutoscaledNumbers.FromString(data or b"")
        except DecodeError:
            logger.warning(
                "what autoscaling has decided cannot be read; it starts with the numbers in the desired state"
            )
            return control_pb2.AutoscaledNumbers()

    def save_numbers(self, numbers: control_pb2.AutoscaledNumbers) -> None:
        self.check_epoch()
        self._has_numbers = True
        self._kv.put(NUMBERS_KEY, numbers.SerializeToString())

    def has_state(self) -> bool:
        return self._kv.get(STATE_KEY) is not None

    def claim(self) -> None:
        """Count the start of this controller: from now on no earlier one stores anything."""
        epoch = self._starts() + 1
        self._kv.put(CONTROLLER_STARTS_KEY, str(epoch).encode())
        self.epoch = epoch

    def check_epoch(self) -> None:
        """Raises FencedError when a newer controller has started."""
        newest = self._starts()
        if self.epoch and newest > self.epoch:
            self._on_fenced()
            raise FencedError(f"controller {newest} of this mesh has taken over from this one, number {self.epoch}")

    def load_events(self) -> bytes:
        return self._kv.get(EVENTS_KEY) or b""

    def save_events(self, data: bytes) -> None:
        self.check_epoch()
        self._kv.put(EVENTS_KEY, data)

    def put_address(self, address: str) -> None:
        """Let clients find this controller, unless a newer one has started: they would not find that any more."""
        self.check_epoch()
        self._kv.put(CONTROLLER_ADDRESS_KEY, address.encode())
        self._kv.delete(CONTROLLER_FAILURE_KEY)

    def put_failure(self, reason: str) -> None:
        """Let clients that wait for this controller know why it does not serve."""
        self.check_epoch()
        self._kv.put(CONTROLLER_FAILURE_KEY, reason.encode(errors="replace"))

    def _starts(self) -> int:
        """How many there were. A count that cannot be read is set to that of this one, which must not stop for it."""
        data = self._kv.get(CONTROLLER_STARTS_KEY) or b"0"
        try:
            return int(data)
        except ValueError:
            logger.warning(
                "the count of controllers, %s of the cluster's key-value store, cannot be read and is set to %d: %r",
                CONTROLLER_STARTS_KEY,
                self.epoch,
                data,
            )
            self._kv.put(CONTROLLER_STARTS_KEY, str(self.epoch).encode())
            return self.epoch

    def _remove_numbers(self) -> None:
        """They were stored beside an older state, so nothing reads them any more."""
        if self._has_numbers:
            self._kv.delete(NUMBERS_KEY)
            self._has_numbers = False

    def _remove_waste(self, state: control_pb2.DesiredState) -> None:
        referenced = keys_of(state)
        for key in (*self._kv.keys(CODE_PREFIX), *self._kv.keys(DESCRIPTORS_PREFIX)):
            if key not in referenced:
                self._kv.delete(key)
