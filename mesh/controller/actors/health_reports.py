"""What replicas report of their own health on their Sync streams.

Theory of operation. A call of Ray costs the controller twenty times what a message of a stream does, so a replica that
checks itself and is well says so, and is not called. Everything else is as without reports: a replica that reports
anything else, or is silent, is called, and only the outcome of calls counts as a failure. A report of trouble makes the
first call come at once, so that nothing is found out later than by calls alone.
"""

from __future__ import annotations

import asyncio
import contextlib

from mesh.v1 import control_pb2

_LATE_SHARE, _LATE_S = 1.25, 1.0
"""How much older than a period the last report may be."""


class HealthReports:
    """The latest health reports of all replicas. On one event loop."""

    def __init__(self) -> None:
        self._good_at_s: dict[str, float] = {}
        self._troubles: dict[str, asyncio.Event] = {}
        """One for each replica that is waited for."""

    def take(self, report: control_pb2.ReplicaHealth) -> None:
        """Those of replicas that are not waited for are ignored."""
        trouble = self._troubles.get(report.replica_id)
        if trouble is None:
            return
        if report.is_well:
            self._good_at_s[report.replica_id] = asyncio.get_running_loop().time()
        else:
            self._good_at_s.pop(report.replica_id, None)
            trouble.set()

    def says_well(self, replica_id: str, period_s: float) -> bool:
        """The replica has said so, not much longer than a period ago."""
        at_s = self._good_at_s.get(replica_id)
        return at_s is not None and asyncio.get_running_loop().time() - at_s <= period_s * _LATE_SHARE + _LATE_S

    async def pause(self, replica_id: str, seconds: float) -> bool:
        """Returns early, and True, when the replica reports trouble."""
        trouble = self._troubles.setdefault(replica_id, asyncio.Event())
        trouble.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await trouble.wait()
        return trouble.is_set()

    def forget(self, replica_id: str) -> None:
        self._good_at_s.pop(replica_id, None)
        self._troubles.pop(replica_id, None)
