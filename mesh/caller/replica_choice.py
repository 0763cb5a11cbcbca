"""`handle.choose_replica()`: a call in two steps. A place at one replica is reserved, then a call is sent there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from mesh.caller.call_future import CallFuture
from mesh.caller.response import refuse_in_loop
from mesh.cluster.keys import DeploymentKey
from mesh.context import ReplicaId
from mesh.exceptions import DisconnectedError
from mesh.link.outgoing_call import OutgoingCall
from mesh.link.replica_facts import ReplicaFacts
from mesh.routing.snapshot import ReplicaInfo
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import to_exception

StartReservation = Callable[[], tuple[CallFuture, OutgoingCall]]


class ReplicaSelection:
    """A replica of which one place is reserved, for one `dispatch`."""

    def __init__(self, deployment_id: DeploymentKey, call: OutgoingCall, replica: ReplicaInfo) -> None:
        self.deployment_id = deployment_id
        self.replica_metadata: Mapping[str, Any] = getattr(call.link, "facts", ReplicaFacts()).metadata
        """What its `record_replica_metadata` returned when it started."""
        self._call = call
        self._replica = replica
        self._is_used = False
        self._is_released = False

    def __repr__(self) -> str:
        return f"ReplicaSelection(replica_id='{self._replica.replica_id}')"

    @property
    def replica_id(self) -> ReplicaId:
        """Its id, as `mesh status` shows it."""
        return ReplicaId(self._replica.replica_id, self.deployment_id)

    @property
    def node_id(self) -> str:
        """The node it runs on, as Ray names it."""
        return self._replica.node_id

    @property
    def availability_zone(self) -> str:
        """The zone of its node; empty where none is known."""
        return self._replica.zone

    def use(self, deployment_id: DeploymentKey) -> str:
        """The id of the replica, for the one call that may go there.

        Raises ValueError for another deployment, RuntimeError for a second call and after the end of the `with` block.
        """
        if deployment_id != self.deployment_id:
            raise ValueError(
                f"The selection is of a replica of {self.deployment_id}, not of {deployment_id}: dispatch it with a "
                "handle of that deployment."
            )
        if self._is_used or self._is_released:
            why = "was dispatched already" if self._is_used else "has ended with its `with` block"
            raise RuntimeError(f"The selection {why}: choose a replica for each call.")
        self._is_used = True
        return self._replica.replica_id

    def release(self) -> None:
        """Give the place back, unless that has been done."""
        if not self._is_released:
            self._is_released = True
            io_thread().call(self._call.half_close)


class ReplicaChoice:
    """A context manager, for `async with` in an event loop and `with` elsewhere, that gives a ReplicaSelection."""

    def __init__(self, deployment_id: DeploymentKey, start: StartReservation) -> None:
        self._deployment_id = deployment_id
        self._start = start
        self._selection: ReplicaSelection | None = None

    async def __aenter__(self) -> ReplicaSelection:
        """Waits for a free place. Raises what a call raises that does not get one, such as BackPressureError."""
        future, call = self._start()
        try:
            await future.wait_headers()
        except asyncio.CancelledError:
            future.cancel()
            raise
        return self._select(future, call)

    async def __aexit__(self, *error: object) -> None:
        self._release()

    def __enter__(self) -> ReplicaSelection:
        """Like `async with`, blocking."""
        refuse_in_loop()
        future, call = self._start()
        try:
            future.wait_headers_blocking(None)
        except BaseException:  # KeyboardInterrupt: no selection is left to give the place back
            future.cancel()
            raise
        return self._select(future, call)

    def __exit__(self, *error: object) -> None:
        self._release()

    def _select(self, future: CallFuture, call: OutgoingCall) -> ReplicaSelection:
        if future.outcome is not None:
            raise DisconnectedError() if future.outcome.is_ok else to_exception(future.outcome)
        replica_id = getattr(call.link, "replica_id", "")
        known = {replica.replica_id: replica for replica in future.router.listing.replicas}
        replica = known.get(replica_id) or ReplicaInfo(replica_id, "")
        self._selection = ReplicaSelection(self._deployment_id, call, replica)
        return self._selection

    def _release(self) -> None:
        if self._selection is not None:
            self._selection.release()
