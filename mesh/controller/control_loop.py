"""Owns the control loop: observe → plan → apply → publish.

Level-triggered: a turn looks at everything and does what is missing, so a lost event costs at most a second. All state
lives on the I/O loop; only the store and Ray's blocking calls leave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mesh.controller.actors.action_dispatch import Applier
from mesh.controller.actors.actor_registry import ActorRegistry
from mesh.controller.actors.cluster_runtime import Runtime
from mesh.controller.actors.node_list import NodeList
from mesh.controller.actors.orphans import OrphanCollector
from mesh.controller.actors.recovery import recover
from mesh.controller.desired.desired_change import with_replicas
from mesh.controller.desired.desired_keeper import DesiredKeeper, Edit
from mesh.controller.desired.desired_state import Desired
from mesh.controller.desired.desired_store import StateStore, StoreFailed
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.plan.planner import plan
from mesh.controller.report.publisher import Publisher
from mesh.controller.report.snapshots import build_routes, build_snapshots
from mesh.controller.report.status_judge import Judge
from mesh.controller.report.status_report import build_status
from mesh.controller.scaling.policy_keeper import PolicyKeeper
from mesh.controller.scaling.scaling_memory import Autoscaler
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_PERIOD_S = 1.0
_STORE_PATIENCE_S = 1.0


class ControlLoop:
    def __init__(
        self,
        store: StateStore,
        runtime: Runtime,
        publisher: Publisher,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._runtime = runtime
        self._spawn_task = spawn_task
        self._publisher = publisher
        self._clock = clock
        self._wake = asyncio.Event()
        self._wanted = DesiredKeeper(store, self._use)
        self._registry = ActorRegistry(clock, self._wake.set)
        self._applier = Applier(
            self._registry, runtime, spawn_task=spawn_task, new_id=new_id, before_drain=publisher.flush
        )
        self.autoscaler = Autoscaler(clock, self._wake.set)
        self._policies = PolicyKeeper(runtime, self.autoscaler, spawn_task, new_id)
        self._node_list = NodeList(runtime, clock)
        self._judge = Judge()

    async def begin(self, gateways: control_pb2.GatewayOptions) -> None:
        """Load the desired state, or make the first one, and take over what an earlier controller left running."""
        await self._wanted.load(gateways)
        await recover(self._runtime, self._applier)
        # Whoever asks from now on hears of what was found, not that there is nothing.
        await self._try_turn()

    async def run(self) -> None:
        """Turn for ever."""
        self._spawn_task(OrphanCollector(self._runtime, self._actor_names).collect(), "orphans")
        while True:
            self._wake.clear()
            began_at_s = self._clock()
            if not await self._try_turn():
                await asyncio.sleep(_PERIOD_S)
            # However many events come, at most half of the time goes into turns.
            await asyncio.sleep(min(self._clock() - began_at_s, _PERIOD_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.autoscaler.period_s(at_most_s=_PERIOD_S)):
                    await self._wake.wait()

    @property
    def config_file(self) -> str | None:
        """The configuration file that was applied last."""
        return self._wanted.config_file

    async def change(self, edit: Edit, code_of: Sequence[control_pb2.ApplicationSpec] = ()) -> int:
        """Store an edited state (and the code of applications, before it) and act on it. Returns its version.

        What `edit` raises is raised before anything is stored.
        """
        version = await self._wanted.change(edit, code_of)
        for application in code_of:
            self._forgive(application)
        return version

    def status(self) -> control_pb2.StatusReply:
        observed = self._judged()
        return build_status(
            self._wanted.desired,
            observed,
            self._judge.verdicts,
            self._clock(),
            self.autoscaler.statuses(),
            self._judge.faults.texts(),
        )

    def _use(self, desired: Desired) -> None:
        self._applier.use(desired)
        self.autoscaler.use(desired)
        self._policies.use(desired)
        self._registry.forget_failures(keep=set(desired.deployments))
        self._judge.faults.keep(set(desired.deployments))
        self._node_list.expire()
        self._wake.set()

    def _forgive(self, application: control_pb2.ApplicationSpec) -> None:
        """Deployed anew, a deployment gets all its tries again, even if nothing about it has changed."""
        for deployment in application.deployments:
            key = DeploymentKey(application.name, deployment.name)
            self._registry.restart_failures(key)
            self._judge.forgive(key)

    async def _try_turn(self) -> bool:
        """The one boundary: whatever went wrong, the next turn starts from the whole picture again."""
        try:
            await self._turn()
        except Exception:
            logger.exception("a turn of the control loop failed")
            return False
        return True

    async def _turn(self) -> None:
        await self._node_list.refresh(is_calm=self._is_calm)
        await self._scale()
        desired = self._wanted.desired
        self._registry.see_nodes(self._node_list.nodes)
        observed = self._registry.observed()
        # From here to the publishing nothing awaits: a replica leaves the snapshots before its drain can begin.
        planned = plan(desired, observed, self._clock())
        self._judge.faults.note("planning", planned.problems)
        self._judge.faults.note("work on replicas", self._applier.apply(planned))
        observed = self._judged()
        self._publisher.publish(
            desired, build_snapshots(desired, observed, self._judge.verdicts), build_routes(desired)
        )

    def _actor_names(self) -> set[str]:
        """Of everything that is ours to end."""
        return self._registry.actor_names() | self._policies.actor_names()

    @property
    def _is_calm(self) -> bool:
        """Every deployment is as it shall be, and no node is about to end."""
        stays = all(node.ends_s is None for node in self._node_list.nodes)
        return stays and self._judge.all_healthy

    async def _scale(self) -> None:
        """Bring the numbers of replicas to the load. They are stored before anybody acts on them."""
        desired = self._wanted.desired
        groups = self._registry.observed().by_deployment()
        decided = self.autoscaler.decide(desired, groups)
        self._judge.faults.note("autoscaling", self.autoscaler.problems)
        # While something else is stored nothing is lost: the end of that wakes the loop, and it is decided again.
        if decided and not self._wanted.is_changing:
            targets = {key: (desired.deployments[key].num_replicas, target) for key, target in decided.items()}
            try:
                async with asyncio.timeout(_STORE_PATIENCE_S):
                    await self._wanted.change(functools.partial(with_replicas, targets=targets))
            except TimeoutError:
                logger.warning("the cluster's KV is slow: numbers of replicas change when they are stored")
            except StoreFailed as error:
                logger.warning("the numbers of replicas stay as they are: %s", error)

    def _judged(self) -> Observed:
        """The present picture, with the verdicts brought up to it."""
        observed = self._registry.observed()
        self._judge.look(self._wanted.desired, observed, self._clock())
        return observed
