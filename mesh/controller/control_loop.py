"""The control loop: observe → plan → act → publish.

Level-triggered: a turn looks at the whole state and does what is missing, so a lost event costs at most one period. All
state lives on the I/O loop; only the store and Ray's blocking calls run in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mesh.cluster.keys import REPLICA_PREFIX
from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.cluster_runtime import Runtime
from mesh.controller.actors.gateway_keeper import GatewayKeeper
from mesh.controller.actors.health_reports import HealthReports
from mesh.controller.actors.node_list import NodeList
from mesh.controller.actors.orphans import OrphanCollector
from mesh.controller.actors.recovery import recover
from mesh.controller.actors.registry.actor_registry import ActorRegistry
from mesh.controller.actors.replica_keeper import ReplicaKeeper
from mesh.controller.backups import backup_of
from mesh.controller.desired.changes.generations import with_proofs
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.desired.controller_faults import Problems, confined
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.desired.desired_state import Desired
from mesh.controller.nodes.cordons import with_cordons
from mesh.controller.own_changes import Clocks, OwnChanges
from mesh.controller.plan.actions import GatewayAction, Plan, ReplicaAction, StartReplica
from mesh.controller.plan.cluster_picture import Node, Observed
from mesh.controller.plan.planner import plan
from mesh.controller.plan.progress import held_replicas, overdue_replicas
from mesh.controller.repeated_requests import once
from mesh.controller.report.canary_traffic import closed_canaries
from mesh.controller.report.loop_metrics import LoopTimes, TurnPart, TurnResult
from mesh.controller.report.mesh_picture import MeshPicture
from mesh.controller.report.publisher import Publisher
from mesh.controller.report.snapshots import SnapshotMemory, build_routes, build_snapshots
from mesh.controller.report.status_judge import StatusJudge
from mesh.controller.report.status_report import build_status
from mesh.controller.scaling.policy_keeper import PolicyKeeper
from mesh.controller.scaling.scaling_memory import Autoscaler
from mesh.controller.store.desired_store import StateStore
from mesh.controller.store.state_contents import keys_of
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")


class _Keepers(NamedTuple):
    replicas: ReplicaKeeper
    gateways: GatewayKeeper
    policies: PolicyKeeper


class _Shown(NamedTuple):
    """What people and callers are shown."""

    judge: StatusJudge
    snapshots: SnapshotMemory
    publisher: Publisher


class LostStateError(Exception):
    """There are replicas, and nothing says what for."""


class ControlLoop:
    def __init__(
        self,
        store: StateStore,
        runtime: Runtime,
        publisher: Publisher,
        *,
        clocks: Clocks,
        new_id: Callable[[], str],
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._runtime = runtime
        self._spawn_task = spawn_task
        self._shown = _Shown(StatusJudge(), SnapshotMemory(), publisher)
        self._clock = clock = clocks.monotonic
        self._wake = asyncio.Event()
        self._wanted = DesiredKeeper(store, self._use, self._use_numbers, clocks.unix)
        self._registry = ActorRegistry(clock, self._wake.set)
        calls = ActorCalls(runtime, before_drain=publisher.flush)
        self.autoscaler = Autoscaler(clock, self._wake.set)
        self._keepers = _Keepers(
            ReplicaKeeper(self._registry, runtime, calls, spawn_task, new_id),
            GatewayKeeper(self._registry.gateways, runtime, calls, spawn_task, new_id),
            PolicyKeeper(runtime, calls, self.autoscaler, spawn_task, new_id),
        )
        self.times = LoopTimes(clock)
        self._node_list = NodeList(runtime, clock)
        self._own_changes = OwnChanges(self._wanted, self._registry, self._node_list, clocks)

    def __repr__(self) -> str:
        return f"<ControlLoop {self._registry!r} {self._shown.publisher!r} {self._keepers.policies!r}>"

    async def begin(self, gateways: control_pb2.GatewayOptions) -> None:
        """Load the desired state, or store the first one, and adopt the actors of an earlier controller."""
        if not await self._wanted.claim():
            await self._refuse_lost_state()
        await self._wanted.load(gateways)
        await recover(self._runtime, self._keepers.replicas, self._keepers.gateways)
        if self._registry.actor_names():
            self._shown.publisher.expect_returns(settings().controller.return_timeout_s)
        # Run one turn before serving, so that the first Status lists the adopted replicas.
        await self._try_turn()

    async def run(self) -> None:
        """Run turns until it is cancelled."""
        self._spawn_task(self._wanted.stay_current(), "epoch")
        self._spawn_task(OrphanCollector(self._runtime, self._actor_names).collect(), "orphans")
        period_s = settings().controller.turn_interval_s
        while True:
            self._wake.clear()
            began_at_s = self._clock()
            if not await self._try_turn():
                await asyncio.sleep(period_s)
            # Events may come at any rate, but at most half of the time goes into turns.
            await asyncio.sleep(min(self._clock() - began_at_s, period_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.autoscaler.period_s(at_most_s=period_s)):
                    await self._wake.wait()

    @property
    def config_file(self) -> str | None:
        """Text of the configuration file that was applied last; None without one."""
        return self._wanted.config_file

    @property
    def descriptor_sets(self) -> Mapping[str, bytes]:
        """The descriptors of all applications, by the digests that their specs have."""
        return self._wanted.desired.descriptor_sets

    def history(self, name: str) -> control_pb2.HistoryReply:
        """The last deploys of an application; none of one that is not there."""
        return self._wanted.history(name)

    def preview(self, edit: Edit) -> tuple[control_pb2.DesiredState, control_pb2.DesiredState]:
        """The desired state and what `edit` would make of it."""
        return self._wanted.preview(edit)

    async def backup(self, unix_time_s: float) -> control_pb2.MeshBackup:
        """The stored state with all code. Raises StoreError, and InvalidChangeError where code is lost."""
        state, contents, servicer_functions = await self._wanted.read_with(keys_of)
        return backup_of(state, contents, servicer_functions, unix_time_s)

    async def change(
        self, edit: Edit, code_of: Sequence[control_pb2.ApplicationSpec] = (), request_id: str = ""
    ) -> int:
        """Store the code of applications, then the edited state, and act on it. Returns the version of the state.

        A request of that id that is stored already changes nothing. What `edit` raises is raised before anything is
        stored. Raises StoreError when the KV does not answer.
        """
        proofs = self._own_changes.proofs()
        version = await self._wanted.change(
            once(lambda state: edit(with_proofs(state, proofs)), request_id),
            code_of,
            on_stored=lambda: self._restart_failures(code_of),
        )
        # A client that gets the answer may call at once what it has deployed.
        self._publish(self._wanted.desired)
        return version

    def picture(self) -> MeshPicture:
        """The mesh as it is now. Callers are shown the same: a replica that a status lists is one that they find."""
        # What is shown as open to callers has been published as open.
        now_s = self._clock()
        observed = self._publish(self._wanted.desired)
        return MeshPicture(
            desired=self._wanted.desired,
            observed=observed,
            verdicts=self._shown.judge.verdicts,
            now_s=now_s,
            turn_age_s=self._clock() - self.times.turned_at_s,
            loads=self.autoscaler.loads(),
            scaling=self.autoscaler.statuses(),
            faults=self._shown.judge.faults.texts(),
        )

    def status(self) -> control_pb2.StatusReply:
        return build_status(self.picture())

    @property
    def nodes(self) -> Sequence[Node]:
        """The cluster's nodes as Ray has them, and those that are gone and still cordoned."""
        present = self._node_list.nodes
        gone = self._wanted.desired.cordons.keys() - {node.node_id for node in present}
        return [*present, *(Node(node_id=node_id) for node_id in sorted(gone))]

    @property
    def health(self) -> HealthReports:
        """What replicas report of themselves."""
        return self._keepers.replicas.checks.reports

    @property
    def waits_for(self) -> str:
        """Not empty: it does not act on the loss of many nodes yet."""
        return self._node_list.problem

    async def _refuse_lost_state(self) -> None:
        """Without a stored state every replica would be an orphan. A new mesh has none."""
        replicas = [name for name in await self._runtime.actor_names() if name.startswith(REPLICA_PREFIX)]
        if replicas:
            raise LostStateError(
                f"The desired state of the mesh is gone from the cluster's key-value store, but {len(replicas)} "
                "replicas live. They are not touched and go on serving. To start again: mesh.shutdown(), then deploy."
            )

    def _use(self, desired: Desired) -> None:
        before = self._keepers.replicas.desired
        for key, target in desired.deployments.items():
            # A promoted canary, or a version that comes back, may have failed in an outage that is over.
            if key in before.deployments and before.deployments[key].version != target.version:
                self._registry.restart_failures(key, target.version)
        if desired.cordons != before.cordons:
            self._see_nodes(desired)
        self._keepers.replicas.use(desired)
        self._keepers.gateways.options = desired.gateway_options
        self.autoscaler.use(desired)
        self._keepers.policies.use(desired)
        self._expect(desired)
        self._shown.judge.faults.keep(desired.kept)
        self._node_list.expire()
        self._wake.set()

    def _use_numbers(self, desired: Desired) -> None:
        """Other numbers of replicas, and nothing else: that may come often."""
        self._keepers.replicas.use(desired)
        self._expect(desired)
        self._node_list.expire()
        self._wake.set()

    def _expect(self, desired: Desired) -> None:
        versions = {(target.key, target.version) for target in desired.all_targets()}
        self._registry.expect(versions, desired.targets)

    def _restart_failures(self, applications: Sequence[control_pb2.ApplicationSpec]) -> None:
        """Give each deployment of deployed applications all its attempts again, even if nothing about it changed.

        A canary leaves the application beside it as it was, failed or not.
        """
        desired = self._wanted.desired
        for application in applications:
            is_canary = application.HasField("traffic")
            targets = desired.canaries if is_canary else desired.deployments
            for deployment in application.deployments:
                key = DeploymentKey(application.name, deployment.name)
                if target := targets.get(key):
                    self._registry.restart_failures(key, target.version)
                    if not is_canary:
                        self._shown.judge.restart(key)

    async def _try_turn(self) -> bool:
        """The one boundary for exceptions: after a failure the next turn starts from the whole state again."""
        try:
            await self._turn()
        except Exception:
            logger.exception("a turn of the control loop failed")
            self.times.ended(TurnResult.FAILED)
            return False
        self.times.ended(TurnResult.DONE)
        return True

    async def _turn(self) -> None:
        part = self.times.part
        with part(TurnPart.NODES):
            await self._node_list.refresh(is_calm=self._is_calm)
        with part(TurnPart.DECIDE):
            await self._own_changes.record_proofs()
            self._shown.judge.faults.note("autoscaling", await self._own_changes.scale(self.autoscaler))
            await self._own_changes.forget_cordons()
            await self._own_changes.record_drained()
            desired = self._wanted.desired
            self._see_nodes(desired)
            self._fail_overdue(desired)
            await self._own_changes.undo_failures()
            desired = self._wanted.desired
        # No await from here to `publish`: a replica leaves the snapshots before its drain can begin.
        with part(TurnPart.PLAN):
            planned = _planned(desired, self._registry.observed(), self._clock())
        self._shown.judge.faults.note("planning", planned.problems)
        with part(TurnPart.ACT):
            self._shown.judge.faults.note("work on replicas", self._act(planned))
        self._publish(desired)

    def _publish(self, desired: Desired) -> Observed:
        """Bring the verdicts, the snapshots and the routes up to date with the present picture, which is returned."""
        with self.times.part(TurnPart.PUBLISH):
            observed, now_s = self._registry.observed(), self._clock()
            judge, memory, publisher = self._shown
            judge.update(desired, observed, now_s)
            closed = closed_canaries(desired, observed, now_s)
            snapshots = build_snapshots(desired, observed, judge.verdicts, closed, memory)
            publisher.publish(desired, snapshots, build_routes(desired, observed, closed))
        return observed

    def _fail_overdue(self, desired: Desired) -> None:
        self._registry.hold(held_replicas(desired, self._registry.observed()))
        for overdue in overdue_replicas(desired, self._registry.observed(), self._clock()):
            logger.warning("giving up on %s: %s", overdue.title, overdue.message)
            self._registry.replica_hung(overdue)

    def _act(self, planned: Plan) -> Problems:
        """Start the tasks that carry out the plan. Returns the deployments for which that failed."""
        problems: Problems = {}
        for action in planned.actions:
            self.times.began(action)
            if isinstance(action, GatewayAction):
                self._keepers.gateways.begin(action)
            elif key := self._deployment_of(action):
                with confined(key, problems):
                    self._keepers.replicas.begin(action)
        self._keepers.replicas.log_starts()
        return problems

    def _deployment_of(self, action: ReplicaAction) -> DeploymentKey | None:
        """None for a replica that has ended."""
        if isinstance(action, StartReplica):
            return action.deployment
        replica = self._registry.replica(action.replica_id)
        return replica.deployment if replica is not None else None

    def _actor_names(self) -> set[str]:
        """Names of all actors that the controller manages."""
        return self._registry.actor_names() | self._keepers.policies.actor_names()

    @property
    def _is_calm(self) -> bool:
        """Every deployment is as desired, and no node is being drained."""
        is_drained = any(cordon.is_draining for cordon in self._wanted.desired.cordons.values())
        stays = all(node.ends_at_s is None for node in self._node_list.nodes)
        return stays and not is_drained and self._shown.judge.all_healthy

    def _see_nodes(self, desired: Desired) -> None:
        self._registry.see_nodes(with_cordons(self._node_list.nodes, desired.cordons))


def _planned(desired: Desired, observed: Observed, now_s: float) -> Plan:
    """Nothing, as long as no node is known after a start: nothing could be placed, and cordons not be observed."""
    if not observed.nodes and not desired.is_shutting_down:
        return Plan((), {})
    # Also of nodes that the list lacks, as it may after a start.
    with_cordoned = replace(observed, cordoned_ids=frozenset(desired.cordons))
    return plan(desired, with_cordoned, now_s, settings().controller)
