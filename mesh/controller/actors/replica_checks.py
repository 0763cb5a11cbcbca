"""The health checks of replicas that serve: a call where a replica does not say by itself that it is well."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.check_times import check_times_of, wait_for_check
from mesh.controller.actors.health_reports import HealthReports
from mesh.controller.actors.registry.actor_registry import ActorRegistry, actor_name_of
from mesh.controller.plan.cluster_picture import Replica
from mesh.settings import settings
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_READY_MARGIN_S = 5.0
"""Added to the replica's own limit for `check_ready`, so that its answer arrives."""

Options = Callable[[Replica], control_pb2.DeploymentOptions]
LogFailure = Callable[[str, str, str], None]


class ReplicaChecks:
    def __init__(self, registry: ActorRegistry, calls: ActorCalls, options: Options, log_failure: LogFailure) -> None:
        """`options` are those that hold for a replica now; `log_failure` takes what has failed, the id and why."""
        self._registry = registry
        self._calls = calls
        self._options = options
        self._log_failure = log_failure
        self._slots = asyncio.Semaphore(settings().controller.health_calls_max)
        self.reports = HealthReports()

    async def keep_checking(self, replica_id: str) -> None:
        """Check its health while it serves."""
        while (replica := self._registry.replica(replica_id)) and replica.is_up:
            is_calm = not replica.health_failures and not replica.not_ready
            pause = functools.partial(self.reports.pause, replica_id) if is_calm else asyncio.sleep
            await wait_for_check(lambda: self._period_s(replica_id), pause)
            period_s, timeout_s = check_times_of(self._options(replica), is_ready=not replica.not_ready)
            if not is_calm or not self.reports.says_well(replica_id, period_s):
                await self._ask(replica, timeout_s)
        self.reports.forget(replica_id)

    async def _ask(self, replica: Replica, timeout_s: float) -> None:
        name, replica_id = actor_name_of(replica), replica.replica_id
        async with self._slots:
            failure = await self._calls.check(name, timeout_s)
        if failure is not None:
            self._log_failure("health check", replica_id, failure)
        self._registry.replica_checked(replica_id, failure)
        if not replica.checks_ready:
            return
        not_ready = await self._calls.not_ready(name, timeout_s + _READY_MARGIN_S)
        if not_ready is not None and self._registry.replica_readiness(replica_id, not_ready):
            logger.warning("replica %s %s", replica.title, f"takes no calls: {not_ready}" if not_ready else "is ready")

    def _period_s(self, replica_id: str) -> float | None:
        replica = self._registry.replica(replica_id)
        if replica is None or not replica.is_up:
            return None
        return check_times_of(self._options(replica), is_ready=not replica.not_ready).period_s
