"""The replica's checks of itself: while it is well it says so on the Sync stream, and the controller calls it less.

Each check is what the controller's call would do. Its outcome is a hint: where it is not good, or the replica is
silent, the controller calls and counts failures itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from mesh.options.deployments.health_checks import check_period_s_of, check_timeout_s_of
from mesh.settings import settings
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread

_PERIOD_MIN_S = 1.0
"""What is to be checked more often is called: a stream is not for that."""
_random = Random()
"""Not the generator of the program, which may have seeded it."""


class OwnHealth:
    """On the I/O loop."""

    def __init__(
        self,
        replica_id: str,
        check: Callable[[], Awaitable[str]],
        options: Callable[[], control_pb2.DeploymentOptions],
        send: Callable[[control_pb2.ReplicaHealth], None],
    ) -> None:
        """`check` raises what is wrong, or returns why the replica takes no calls, if it takes none."""
        self._replica_id = replica_id
        self._check = check
        self._options = options
        self._send = send
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        phase = "checking" if self._task is not None and not self._task.done() else "stopped"
        return f"<OwnHealth of {self._replica_id}, {phase}>"

    def begin(self) -> None:
        self._task = io_thread().spawn(self._keep(), "own health")

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        while True:
            period_s = check_period_s_of(self._options())
            jitter = settings().controller.health_jitter_share
            await asyncio.sleep(max(period_s, _PERIOD_MIN_S) * _random.uniform(1 - jitter, 1 + jitter))
            if period_s >= _PERIOD_MIN_S:
                self._send(control_pb2.ReplicaHealth(replica_id=self._replica_id, is_well=await self._is_well()))

    async def _is_well(self) -> bool:
        try:
            async with asyncio.timeout(check_timeout_s_of(self._options())):
                return not await self._check()
        except (Exception, SystemExit):  # the user's code may raise anything, and the controller's call will say what
            return False
