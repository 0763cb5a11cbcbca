"""The keeper of replicas: tasks that start, watch, check and stop each one and report to the registry."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, assert_never

from mesh.cluster.keys import ReplicaName
from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, Runtime, read_answer
from mesh.controller.actors.registry.actor_registry import ActorRegistry, actor_name_of
from mesh.controller.actors.replica_checks import ReplicaChecks
from mesh.controller.actors.start_queue import StartQueue
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.desired.resource_request import resource_request_of
from mesh.controller.plan.actions import (
    KillReplica,
    Reason,
    ReconfigureReplica,
    ReplicaAction,
    StartReplica,
    StopReplica,
)
from mesh.controller.plan.cluster_picture import Replica
from mesh.controller.plan.replica_placement import ANYWHERE, NodeAssignment
from mesh.options.deployments import health_checks
from mesh.options.deployments.drain_policy import DrainPolicy, drain_policy_of
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.status import ReplicaState
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

T = TypeVar("T")

_LOGGED_MAX = 20
"""Starts of one turn that have a line each."""


class ReplicaKeeper:
    def __init__(
        self,
        registry: ActorRegistry,
        runtime: Runtime,
        calls: ActorCalls,
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
        new_id: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._runtime = runtime
        self._calls = calls
        self._spawn_task = spawn_task
        self._new_id = new_id
        self.checks = ReplicaChecks(registry, calls, self._options, self._log_failure)
        self._starts = StartQueue(spawn_task)
        self._identifications = asyncio.Semaphore(settings().controller.late_adopt_calls_max)
        self._last_failures: dict[DeploymentKey, str] = {}
        """What was logged of each deployment."""
        self._begun: list[tuple[Replica, Reason]] = []
        """Starts that are not logged yet, and why."""
        self.desired = Desired()
        """Options that take effect without a call to the replica are read from here on each use."""

    def use(self, desired: Desired) -> None:
        """What is wanted from now on."""
        self.desired = desired
        for key in self._last_failures.keys() - desired.kept:
            del self._last_failures[key]

    def begin(self, action: ReplicaAction) -> None:
        """Record the action in the registry and start the task that carries it out. Ignores a replica that is gone."""
        match action:
            case StartReplica():
                self._start(action)
            case ReconfigureReplica(replica_id, reason):
                self._reconfigure(replica_id, reason)
            case StopReplica(replica_id, reason):
                self._stop(replica_id, reason)
            case KillReplica(replica_id, reason):
                self._kill(replica_id, reason)
            case _:
                assert_never(action)

    def log_starts(self) -> None:
        """Log the starts that have begun since the last time: of many those of an application in one line."""
        begun, self._begun = self._begun, []
        if len(begun) <= _LOGGED_MAX:
            for replica, reason in begun:
                _log("starting", replica, reason)
            return
        counts: defaultdict[tuple[str, Reason], Counter[DeploymentKey]] = defaultdict(Counter)
        for replica, reason in begun:
            counts[replica.deployment.app, reason][replica.deployment] += 1
        for (app, reason), of in counts.items():
            count = of.total()
            replicas = "1 replica" if count == 1 else f"{count} replicas"
            whose = str(*of) if len(of) == 1 else f"{len(of)} deployments of application {app!r}"
            logger.info("starting %s of %s: %s", replicas, whose, reason)

    def adopt(self, ready: control_pb2.ReplicaReady) -> None:
        """Take over a replica of an earlier controller. Without an address it is still starting."""
        replica = self._found(ready)
        self._registry.add_replica(replica, ready.age_s)
        self._keep("watch", ready.replica_id, self._watch(actor_name_of(replica), ready.replica_id))
        self._go_on(replica, ready)

    def adopt_silent(self, name: ReplicaName) -> None:
        """Take over a replica that does not say which one it is: it may be busy, and its callers may be served by it.

        It counts towards the target, and callers that ask now do not hear of it until it answers.
        """
        target = self._target_named(name)
        replica = Replica(
            replica_id=name.replica_id,
            deployment=DeploymentKey(*name.deployment),
            version=target.version if target is not None else "",
            state=ReplicaState.RECOVERING,
            is_placed=True,
            actor_name=str(name),
        )
        logger.warning("replica %s of an earlier controller does not answer yet, waiting for it", replica.title)
        self._registry.add_replica(replica)
        self._keep("watch", name.replica_id, self._watch(str(name), name.replica_id))
        self._keep("identify", name.replica_id, self._identify(str(name), name.replica_id))

    def adopt_pending(self, name: ReplicaName) -> bool:
        """Take over a replica that has no process yet. False: its deployment does not want it, or not this version.

        A replica that has to run on a certain node is not adopted, because that node is not known any more.
        """
        key = DeploymentKey(*name.deployment)
        wanted = (self.desired.target(key), self.desired.canaries.get(key))
        target = next((each for each in wanted if each is not None and name.is_of(each.version)), None)
        if target is None or target.request.is_bound:
            return False
        replica = _new_replica(name.replica_id, target, ANYWHERE, self._registry.clock())
        self._registry.put_replica(replica)
        self._keep("watch", replica.replica_id, self._watch(actor_name_of(replica), replica.replica_id))
        self._keep("start", replica.replica_id, self._await_start(actor_name_of(replica), replica.replica_id))
        return True

    def record_death(self, name: ReplicaName, reason: str) -> None:
        """A replica was killed while no controller ran: count a failure of its version, if that is still wanted."""
        target = self._target_named(name)
        if target is not None:
            self._registry.put_replica(_named_replica(name.replica_id, target, self._registry.clock()))
            self._registry.replica_closed(name.replica_id, reason)

    async def _identify(self, name: str, replica_id: str) -> None:
        """As long as a health check may fail before it counts. Asked at once, all would wait for each other so long."""
        patience_s = settings().controller.health_failures_max * health_checks.DEFAULT_TIMEOUT_S
        try:
            async with self._identifications, asyncio.timeout(patience_s):
                answer = await self._answered(replica_id, lambda: self._runtime.call(name, "describe"))
            ready = _ready_of(replica_id, answer)
        except ActorDiedError:
            return  # _watch reports it, with the reason
        except (ActorCallError, TimeoutError) as error:
            reason = str(error) or f"it did not answer a new controller within {patience_s:g} s"
            self._log_failure("identification", replica_id, reason)
            self._registry.replica_broken(replica_id, reason)
            return
        known = self._registry.replica(replica_id)
        if known is not None and not known.is_leaving:
            replica = self._found(ready)
            self._registry.add_replica(replica, ready.age_s)
            self._go_on(replica, ready)

    def _found(self, ready: control_pb2.ReplicaReady) -> Replica:
        replica = Replica(
            replica_id=ready.replica_id,
            deployment=DeploymentKey(ready.deployment.app, ready.deployment.name),
            version=ready.version,
            config_version=ready.config_version,
            state=ReplicaState.RECOVERING if ready.address else ReplicaState.STARTING,
            is_placed=True,
            drain=drain_policy_of(ready.spec.options),
            spec=ready.spec,
            bundles=resource_request_of(ready.spec.options).bundles,
            bundle_nodes=tuple(ready.bundle_node_ids),
        )
        return replace(replica, drain=self._drain_policy(replica))

    def _go_on(self, replica: Replica, ready: control_pb2.ReplicaReady) -> None:
        """With what an earlier controller had begun."""
        if ready.address:
            self._registry.replica_ready(ready)
        if ready.is_draining:
            self._stop(ready.replica_id, Reason.ADOPTED)
        elif ready.address:
            self._keep("check", ready.replica_id, self.checks.keep_checking(ready.replica_id))
        else:
            self._keep("start", ready.replica_id, self._await_start(actor_name_of(replica), ready.replica_id))

    def _start(self, action: StartReplica) -> None:
        target = self._wanted(action.deployment)
        if action.is_canary:
            target = self.desired.canaries[action.deployment]
        elif action.is_predecessor and target.predecessor is not None:
            target = target.predecessor
        replica = _new_replica(self._new_id(), target, action.assignment, self._registry.clock())
        self._registry.put_replica(replica)
        self._begun.append((replica, action.reason))
        self._starts.add(replica.replica_id, partial(self._bring_up, replica, target, action.assignment))

    def _reconfigure(self, replica_id: str, reason: Reason) -> None:
        if replica := self._registry.replica(replica_id):
            target = self.desired.target_of(replica.deployment, replica.version) or self._wanted(replica.deployment)
            spec = self._replica_spec(replica_id, target)
            self._registry.replica_reconfiguring(replica_id, spec.config_version)
            _log("reconfiguring", replica, reason)
            self._keep("reconfigure", replica_id, self._bring_to_config(actor_name_of(replica), spec))

    def _stop(self, replica_id: str, reason: Reason) -> None:
        if replica := self._registry.replica(replica_id):
            if self._registry.replica_stopping(replica_id, self._drain_policy(replica), reason):
                _log("stopping", replica, reason)
            self._keep("drain", replica_id, self._calls.drain(actor_name_of(replica)))

    def _kill(self, replica_id: str, reason: Reason) -> None:
        if replica := self._registry.replica(replica_id):
            policy = DrainPolicy(0.0, settings().controller.drain_margin_s)
            if is_new := self._registry.replica_stopping(replica_id, policy, reason):
                _log("killing", replica, reason)
            if self._starts.remove(replica_id):
                self._registry.replica_closed(replica_id, "it was stopped before it had a process")
                return
            end = self._calls.abandon if is_new and _is_incomplete(replica, reason) else self._calls.kill
            self._keep("kill", replica_id, end(actor_name_of(replica)))

    def _keep(self, verb: str, replica_id: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self._spawn_task(coroutine, f"{verb} replica {replica_id}")

    async def _bring_up(self, planned: Replica, target: DeploymentTarget, assignment: NodeAssignment) -> None:
        name, replica_id = actor_name_of(planned), planned.replica_id
        try:
            await self._runtime.spawn_replica(name, self._replica_spec(replica_id, target), assignment)
        except ActorCallError as error:
            await self._calls.release(name)
            self._registry.replica_closed(replica_id, str(error))
            return
        self._keep("watch", replica_id, self._watch(name, replica_id))
        replica = self._registry.replica(replica_id)
        if replica and replica.is_leaving:
            # It was stopped before it had a process that could drain.
            self._keep("kill", replica_id, self._calls.kill(name))
        else:
            self._keep("start", replica_id, self._await_start(name, replica_id))

    async def _await_start(self, name: str, replica_id: str) -> None:
        try:
            nodes = await self._answered(replica_id, lambda: self._runtime.wait_placed(name))
            self._registry.replica_placed(replica_id, nodes)
            answer = await self._answered(replica_id, lambda: self._runtime.call(name, "start"))
            ready = _ready_of(replica_id, answer)
        except ActorDiedError:
            return  # _watch reports it, with the reason
        except ActorCallError as error:
            self._log_failure("start", replica_id, str(error))
            self._registry.replica_broken(replica_id, str(error))
            return
        self._registry.replica_ready(ready)
        await self.checks.keep_checking(replica_id)

    async def _bring_to_config(self, name: str, spec: control_pb2.ReplicaSpec) -> None:
        request = spec.SerializeToString()
        try:
            await self._answered(spec.replica_id, lambda: self._runtime.call(name, "reconfigure", request))
        except ActorDiedError:
            return  # _watch reports it, with the reason
        except ActorCallError as error:
            self._log_failure("reconfiguration", spec.replica_id, str(error))
            self._registry.config_rejected(spec.replica_id, spec.config_version, str(error))
        else:
            self._registry.replica_reconfigured(spec)

    async def _answered(self, replica_id: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._calls.answered(call, lambda: self._registry.replica(replica_id) is not None)

    async def _watch(self, name: str, replica_id: str) -> None:
        died = await self._calls.death_reason(name, lambda: self._address(replica_id))
        replica = self._registry.replica(replica_id)
        is_expected = replica is None or replica.is_leaving
        if is_expected:
            # Release the placement group first: a shutdown is over as soon as the registry is empty.
            await self._calls.release(name)
        self._registry.replica_closed(replica_id, str(died), is_node_lost=died.is_node_lost)
        if not is_expected:
            await self._calls.release(name)

    def _address(self, replica_id: str) -> str:
        """The "host:port" on which it has to listen; empty while it is stopping."""
        replica = self._registry.replica(replica_id)
        return replica.address if replica is not None and not replica.is_leaving else ""

    def _log_failure(self, what: str, replica_id: str, text: str) -> None:
        """With the user's traceback, which follows the first line of `text`, unless it is the same as the last time."""
        replica = self._registry.replica(replica_id)
        if replica is None or replica.is_leaving:
            return
        before = self._last_failures.get(replica.deployment)
        self._last_failures[replica.deployment] = text
        shown = text.partition("\n")[0] if text == before else text
        logger.warning("the %s of replica %s failed: %s", what, replica.title, shown)

    def _options(self, replica: Replica) -> control_pb2.DeploymentOptions:
        """Those that hold for it now."""
        target = _ruling(self.desired, replica)
        return target.spec.options if target else replica.spec.options

    def _replica_spec(self, replica_id: str, target: DeploymentTarget) -> control_pb2.ReplicaSpec:
        mesh = self.desired.gateways
        return control_pb2.ReplicaSpec(
            replica_id=replica_id,
            deployment={"app": target.key.app, "name": target.key.name},
            spec=target.spec,
            config_version=target.config_version,
            mesh_logging=mesh.logging if mesh.HasField("logging") else None,
            mesh_tracing=mesh.tracing if mesh.HasField("tracing") else None,
        )

    def _wanted(self, key: DeploymentKey) -> DeploymentTarget:
        """The target of a deployment that the plan is about."""
        target = self.desired.target(key)
        if target is None:
            raise LookupError(f"deployment {key} is planned, and not wanted")
        return target

    def _target_named(self, name: ReplicaName) -> DeploymentTarget | None:
        """What a replica of an earlier controller was started for: also for the version before, or for a canary."""
        key = DeploymentKey(*name.deployment)
        target = self.desired.target(key)
        generations = (target, target.predecessor if target is not None else None, self.desired.canaries.get(key))
        return next((each for each in generations if each is not None and name.is_of(each.version)), None)

    def _drain_policy(self, replica: Replica) -> DrainPolicy:
        """That of its deployment now; of what is not wanted any more the last one known."""
        target = _ruling(self.desired, replica)
        return target.drain if target else replica.drain


def _ready_of(replica_id: str, answer: bytes | None) -> control_pb2.ReplicaReady:
    """What the replica says of itself. Raises ActorCallError for an answer that another one would give, or none."""
    ready = read_answer(control_pb2.ReplicaReady, answer)
    if ready.replica_id != replica_id:
        raise ActorCallError(f"its process says that it is replica {ready.replica_id!r}")
    return ready


def _ruling(desired: Desired, replica: Replica) -> DeploymentTarget | None:
    """Whose options of now hold for the replica: those of the wanted version, also for the one before; of a canary
    its own. None: only what it was started with is known, as of a canary that has ended.
    """
    if replica.spec.name and desired.target_of(replica.deployment, replica.version) is None:
        return None
    canary = desired.canaries.get(replica.deployment)
    is_canary = canary is not None and canary.version == replica.version
    return canary if is_canary else desired.target(replica.deployment)


def _new_replica(replica_id: str, target: DeploymentTarget, assignment: NodeAssignment, now_s: float) -> Replica:
    return Replica(
        replica_id=replica_id,
        since_at_s=now_s,
        created_at_s=now_s,
        deployment=target.key,
        version=target.version,
        drain=target.drain,
        spec=target.spec,
        bundles=target.request.bundles,
        bundle_nodes=assignment.node_ids,
        avoided_nodes=assignment.avoided,
    )


def _named_replica(replica_id: str, target: DeploymentTarget, now_s: float) -> Replica:
    """One that has ended. Nothing tells whether it had started: most that run out of memory of what has run had."""
    replica = _new_replica(replica_id, target, ANYWHERE, now_s)
    return replace(replica, state=ReplicaState.RUNNING, ready_at_s=now_s) if target.has_run else replica


def _log(verb: str, replica: Replica, reason: Reason) -> None:
    """The one line about a decision; of an unhealthy replica with what is wrong."""
    fault = replica.unhealthy.partition("\n")[0]
    detail = f" ({fault})" if fault else ""
    logger.info("%s replica %s: %s%s", verb, replica.title, reason, detail)


def _is_incomplete(replica: Replica, reason: Reason) -> bool:
    """Whether it is deleted while it constructs the user's object, which then gets its `__del__`."""
    is_starting = replica.state == ReplicaState.STARTING and bool(replica.bundle_nodes)
    return is_starting and not replica.drain.is_immediate and reason in (Reason.DELETED, Reason.SHUTDOWN)
