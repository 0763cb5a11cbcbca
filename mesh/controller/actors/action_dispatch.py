"""Owns acting on a plan: hands every action to who carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_never

from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.actor_registry import ActorRegistry
from mesh.controller.actors.cluster_runtime import Runtime
from mesh.controller.actors.gateway_keeper import GatewayKeeper
from mesh.controller.actors.replica_keeper import ReplicaKeeper
from mesh.controller.desired.controller_faults import Problems, confined
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.actions import (
    GatewayAction,
    KillGateway,
    KillReplica,
    Plan,
    ReconfigureReplica,
    ReplicaAction,
    StartGateway,
    StartReplica,
    StopGateway,
    StopReplica,
)
from mesh.routing.snapshot import DeploymentKey


class Applier:
    """Nothing here decides, and nothing here waits."""

    def __init__(
        self,
        registry: ActorRegistry,
        runtime: Runtime,
        *,
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
        new_id: Callable[[], str],
        before_drain: Callable[[], Awaitable[None]],
    ) -> None:
        self._desired = Desired()
        self._registry = registry
        calls = ActorCalls(runtime, before_drain)
        self.replicas = ReplicaKeeper(registry, runtime, calls, spawn_task, new_id)
        self.gateways = GatewayKeeper(registry, runtime, calls, spawn_task, new_id)

    def use(self, desired: Desired) -> None:
        """From now on actors are started, checked and stopped as this state says."""
        self._desired = self.replicas.desired = desired

    def apply(self, plan: Plan) -> Problems:
        """Write every intention into the registry and start the tasks that carry it out. Returns where that failed."""
        problems: Problems = {}
        for action in plan.actions:
            if isinstance(action, GatewayAction):
                self._begin_gateway(action)
            elif key := self._deployment_of(action):
                with confined(key, problems):
                    self._begin_replica(action)
        return problems

    def _deployment_of(self, action: ReplicaAction) -> DeploymentKey | None:
        """None for a replica that has gone."""
        if isinstance(action, StartReplica):
            return action.deployment
        replica = self._registry.replica(action.replica_id)
        return replica.deployment if replica is not None else None

    def _begin_replica(self, action: ReplicaAction) -> None:
        match action:
            case StartReplica(key, spot):
                self.replicas.start(key, spot)
            case ReconfigureReplica(replica_id):
                self.replicas.reconfigure(replica_id)
            case StopReplica(replica_id):
                self.replicas.stop(replica_id)
            case KillReplica(replica_id):
                self.replicas.kill(replica_id)
            case _:
                assert_never(action)

    def _begin_gateway(self, action: GatewayAction) -> None:
        match action:
            case StartGateway(node_id):
                self.gateways.start(node_id, self._desired.gateways)
            case StopGateway(gateway_id):
                self.gateways.stop(gateway_id)
            case KillGateway(gateway_id):
                self.gateways.kill(gateway_id)
            case _:
                assert_never(action)
