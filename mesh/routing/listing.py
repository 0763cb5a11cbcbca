"""What the controller has published of one deployment, as its router knows it, and the errors of refused calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    DisconnectedError,
    MeshException,
    QueueTimeoutError,
    ReplicaUnavailableError,
)
from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.snapshot import DeploymentKey, ReplicaInfo, Snapshot


class Listing:
    """The latest snapshot, and those who wait for the first one. I/O loop only, except for `replicas`."""

    def __init__(self, key: DeploymentKey) -> None:
        self._key = key
        self.snapshot: Snapshot | None = None
        self._is_closed = False
        self.why_closed = ""
        """In words, for the calls that end with the router; empty: the router's user has closed it."""
        self._waiting: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Listing of {self._key}, {len(self.replicas)} replicas>"

    @property
    def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Those that are listed. From any thread."""
        return self.snapshot.replicas if self.snapshot is not None else ()

    @property
    def load_interval_s(self) -> float:
        """How often the load is to be reported; 0: never."""
        return self.snapshot.load_interval_s if self.snapshot is not None else 0.0

    @property
    def is_missing(self) -> bool:
        """Whether the controller has said that the deployment does not exist."""
        return self.snapshot is not None and self.snapshot.is_missing

    @property
    def queued_max(self) -> int:
        """Calls that may wait; negative: no limit."""
        return self.snapshot.max_queued_requests if self.snapshot is not None else -1

    @property
    def can_serve(self) -> bool:
        """Whether a call can be answered: there are replicas, or the first call starts one."""
        snapshot = self.snapshot
        return snapshot is not None and (
            bool(snapshot.replicas) or (snapshot.starts_on_demand and not snapshot.unavailable)
        )

    @property
    def why_refused(self) -> MeshException | None:
        """Why no call can be answered, now and later."""
        if self._is_closed:
            return self.closed()
        return self.unavailable() if self.snapshot is not None and self.snapshot.unavailable else None

    def when_known(self, callback: Callable[[], None]) -> None:
        """Call `callback` when there is a snapshot, or the router is closed."""
        if self.snapshot is not None or self._is_closed:
            callback()
        else:
            self._waiting.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Call it no more."""
        if callback in self._waiting:
            self._waiting.remove(callback)

    def publish(self) -> None:
        """Call those who waited, behind all that a first snapshot changes."""
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def close(self) -> None:
        """The router is closed: refuse calls from now on, and keep none waiting for a snapshot."""
        self._is_closed = True
        self.publish()

    # ---- Errors ------------------------------------------------------------------------------------------------------

    def unavailable(self) -> DeploymentUnavailableError:
        """For a call to a deployment that has no replica and starts none."""
        reason = self.snapshot.unavailable if self.snapshot is not None else ""
        return DeploymentUnavailableError(f"{self._key.app}#{self._key.name}", reason)

    def closed(self) -> MeshException:
        """For a call to a router that was closed."""
        if self.why_closed:
            return DisconnectedError(self.why_closed)
        # It may have been on its way here when the router of a deleted deployment was dropped.
        if self.is_missing:
            return self.unavailable()
        return DisconnectedError()

    def back_pressure(self, queued: int, usage: str) -> BackPressureError:
        """For a call that finds the queue full."""
        return BackPressureError(usage=usage, **self._refusal(queued))

    def queue_timeout(self, queued: int, waited: str, timeout_s: float) -> QueueTimeoutError:
        """For a call that waited too long."""
        return QueueTimeoutError(waited, timeout_s, **self._refusal(queued))

    def _refusal(self, queued: int) -> dict[str, Any]:
        """What both errors say of the queue, and what the deployment's `backpressure_config` says."""
        answer = self.snapshot.backpressure if self.snapshot is not None else None
        chosen = {} if answer is None else {"status_code": answer.status_code, "retry_after_s": answer.retry_after_s}
        return {"num_queued_requests": queued, "max_queued_requests": self.queued_max, **chosen}


def replica_gone(call: OutgoingCall) -> ReplicaUnavailableError:
    """For a call that could go to certain replicas only, of which none is left."""
    names = sorted(name for group in call.request.targets or () for name in group)
    return ReplicaUnavailableError(", ".join(names), "it is gone, and the call was for no other", maybe_executed=False)
