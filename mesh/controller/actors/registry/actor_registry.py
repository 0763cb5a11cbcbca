"""The registry of replicas, with that of gateways as a part: events go in, a frozen picture of them comes out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace

from mesh.cluster.keys import replica_name
from mesh.controller.actors.registry.deployment_records import DeploymentRecords
from mesh.controller.actors.registry.gateway_registry import GatewayRegistry
from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.plan.actions import Reason
from mesh.controller.plan.cluster_picture import DepartedReplica, Node, Observed, Replica, RestartReason
from mesh.controller.plan.progress import OverdueReplica
from mesh.controller.plan.replica_state import REPLICA_TRANSITIONS, ReplicaEvent
from mesh.options.deployments.drain_policy import DrainPolicy, drain_policy_of
from mesh.phases.transitions import next_state
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.status import ReplicaState
from mesh.v1 import control_pb2


class ActorRegistry:
    """Written by the keepers, read by the planner, on one event loop. Events of actors that have ended are ignored."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self.clock = clock
        self._on_change = on_change
        self.gateways = GatewayRegistry(clock, on_change)
        self._replicas: dict[str, Replica] = {}
        self._serving: Counter[DeploymentKey] = Counter()
        """How many replicas of each deployment serve. Counting them at each question would be quadratic."""
        self._records = DeploymentRecords(clock)
        self._departed: deque[DepartedReplica] = deque()
        self._nodes: tuple[Node, ...] = ()

    def __repr__(self) -> str:
        replicas = Counter(each.state.value for each in self._replicas.values())
        return f"<ActorRegistry replicas={dict(replicas)} {self.gateways!r} nodes={len(self._nodes)}>"

    def observed(self) -> Observed:
        memory_s = settings().controller.departed_memory_s
        while self._departed and self.clock() - self._departed[0].at_s > memory_s:
            self._departed.popleft()
        return Observed(
            replicas=tuple(self._replicas.values()),
            last_ended=dict(self._records.last_ended),
            tallies=dict(self._records.tallies),
            gateways=self.gateways.observed(),
            nodes=self._nodes,
            replica_failures=dict(self._records.failures),
            config_failures=dict(self._records.config_failures),
            gateway_failures=self.gateways.failures(),
            departed=tuple(self._departed),
        )

    def replica(self, replica_id: str) -> Replica | None:
        return self._replicas.get(replica_id)

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def see_nodes(self, nodes: Sequence[Node]) -> None:
        """Take over the cluster's living nodes. Actors on a node that is gone count as ended."""
        ends_at_s = {node.node_id: node.ends_at_s for node in nodes}
        gone = {node.node_id for node in self._nodes} - ends_at_s.keys()
        self._nodes = tuple(nodes)
        for replica in list(self._replicas.values()):
            if replica.node_id in gone and replica.is_placed:
                self.replica_closed(replica.replica_id, f"its node {replica.node_id[:8]} is gone", is_node_lost=True)
            elif replica.node_ends_at_s != (end_at_s := _first_end(replica, ends_at_s)):
                self._node_ends(replica, end_at_s)
        self.gateways.nodes_gone(gone)

    def actor_names(self) -> set[str]:
        """Names of all replicas and gateways of the registry."""
        return {actor_name_of(each) for each in self._replicas.values()} | self.gateways.actor_names()

    def _node_ends(self, replica: Replica, end_at_s: float | None) -> None:
        marked = replace(replica, node_ends_at_s=end_at_s)
        if end_at_s is not None and replica.state in (ReplicaState.RUNNING, ReplicaState.UPDATING):
            self._moved(marked, ReplicaEvent.NODE_DRAINS)
        elif end_at_s is None and replica.is_migrating:
            self._moved(marked, ReplicaEvent.NODE_STAYS)
        else:
            self.put_replica(marked)

    # ---- replicas --------------------------------------------------------------------------------------------------

    def add_replica(self, replica: Replica, age_s: float = 0.0) -> None:
        """Add a replica that is being started, or was found running at that age."""
        now_s = self.clock()
        self.put_replica(replace(replica, since_at_s=now_s, created_at_s=now_s - age_s))

    def put_replica(self, replica: Replica) -> None:
        """Take over the record as it is."""
        if before := self._replicas.get(replica.replica_id):
            self._serving[before.deployment] -= before.is_serving
        self._serving[replica.deployment] += replica.is_serving
        self._replicas[replica.replica_id] = replica
        self._on_change()

    def replica_placed(self, replica_id: str, bundle_nodes: Sequence[str]) -> None:
        """The replica has a process; its bundles are on these nodes, its process on the first."""
        if replica := self._replicas.get(replica_id):
            self.put_replica(
                replace(replica, is_placed=True, placed_at_s=self.clock(), bundle_nodes=tuple(bundle_nodes))
            )

    def replica_ready(self, ready: control_pb2.ReplicaReady) -> None:
        if (replica := self._replicas.get(ready.replica_id)) is None:
            return
        described = replace(
            replica,
            is_placed=True,
            ready_at_s=self.clock() - ready.serving_s,
            config_version=ready.config_version,
            address=ready.address,
            bundle_nodes=tuple(ready.bundle_node_ids) or (ready.node_id,),
            zone=ready.zone,
            pid=ready.pid,
            not_ready=ready.not_ready,
            unready_at_s=self.clock() if ready.not_ready else None,
            checks_ready=ready.checks_ready,
        )
        self._moved(described, ReplicaEvent.READY)
        if not ready.not_ready:
            self._records.count_success(replica)
        if ready.rejected_config_version:
            self._records.count_rejection(replica, ready.rejected_config_version, ready.rejection)
        # Its node may have begun to drain while it started.
        self._node_ends(self._replicas[replica.replica_id], replica.node_ends_at_s)

    def replica_reconfiguring(self, replica_id: str, config_version: str) -> None:
        if replica := self._replicas.get(replica_id):
            self._moved(replace(replica, next_config_version=config_version), ReplicaEvent.RECONFIGURE)

    def replica_reconfigured(self, spec: control_pb2.ReplicaSpec) -> None:
        """The replica has taken over the configuration of `spec`."""
        if replica := self._replicas.get(spec.replica_id):
            reconfigured = replace(
                replica,
                config_version=spec.config_version,
                next_config_version="",
                reconfigured_at_s=self.clock(),
                drain=drain_policy_of(spec.spec.options),
                spec=spec.spec,
            )
            self._moved(reconfigured, ReplicaEvent.READY)

    def config_rejected(self, replica_id: str, config_version: str, message: str) -> None:
        """The replica did not take over that configuration: it serves on with the one it has."""
        if replica := self._replicas.get(replica_id):
            self._records.count_rejection(replica, config_version, message)
            self._moved(replace(replica, next_config_version=""), ReplicaEvent.READY)

    def replica_stopping(self, replica_id: str, drain: DrainPolicy, reason: Reason) -> bool:
        """The replica is being drained or killed. Returns whether that is a new decision about it."""
        replica = self._replicas.get(replica_id)
        if replica is None or (replica.is_leaving and reason in replica.stop_reasons):
            return False
        if not replica.is_leaving:
            replica = replace(replica, drain=drain)
            self._records.disruptions.count_stop(replica, reason)
        self._moved(replace(replica, stop_reasons=(*replica.stop_reasons, reason)), ReplicaEvent.STOP)
        return True

    def replica_broken(self, replica_id: str, message: str) -> None:
        """The replica runs but must not serve: its constructor or its health checks failed."""
        replica = self._replicas.get(replica_id)
        if replica and not replica.is_leaving and not replica.unhealthy:
            self._records.count_failure(replica, message)
            self._records.count_restart(replica, RestartReason.UNHEALTHY)
            self.put_replica(replace(replica, unhealthy=message))

    def replica_hung(self, overdue: OverdueReplica) -> None:
        """User code has missed its deadline: a constructor or check_ready fails its version, a reconfigure its config.

        The latter may return later. The replica serves on until its health checks say otherwise.
        """
        if (replica := self._replicas.get(overdue.replica_id)) is None:
            return
        if replica.state == ReplicaState.UPDATING:
            self.config_rejected(replica.replica_id, replica.next_config_version, overdue.message)
        else:
            self._records.count_hang(replica, overdue.message)
            self._records.count_restart(replica, RestartReason.START_FAILED)
            self.put_replica(replace(replica, unhealthy=overdue.message))

    def hold(self, replica_ids: Iterable[str]) -> None:
        """Their rollout is paused now."""
        for each in replica_ids:
            self._replicas[each] = replace(self._replicas[each], held_at_s=self.clock())

    def replica_readiness(self, replica_id: str, not_ready: str) -> bool:
        """Why the replica takes no calls, or empty: it does. It stays either way. Returns whether that is news."""
        if not (replica := self._replicas.get(replica_id)) or replica.not_ready == not_ready or replica.is_leaving:
            return False
        since_at_s = replica.ready_at_s if not_ready else self.clock()
        unready_at_s = replica.unready_at_s if not_ready else None
        if replica.unready_at_s is not None and unready_at_s is None:
            self._records.count_success(replica)
        self.put_replica(replace(replica, not_ready=not_ready, ready_at_s=since_at_s, unready_at_s=unready_at_s))
        return True

    def replica_checked(self, replica_id: str, failure: str | None) -> None:
        """Take over the outcome of a health check; `failure` is None when the replica is healthy.

        One that leaves refuses checks, which is not a failure.
        """
        replica = self._replicas.get(replica_id)
        if replica is None or replica.is_leaving or (failure is None and replica.health_failures == 0):
            return
        count = 0 if failure is None else replica.health_failures + 1
        if failure is not None:
            self._records.count_failed_check(replica)
        self.put_replica(replace(replica, health_failures=count))
        is_due = failure is not None and count >= settings().controller.health_failures_max
        key = replica.deployment
        if is_due and self._records.disruptions.allows_another(key, self._serving[key]):
            self.replica_broken(replica_id, f"replica {replica_id} failed {count} health checks in a row: {failure}")

    def replica_closed(self, replica_id: str, message: str, *, is_node_lost: bool = False) -> None:
        """The replica's process has ended, or never started. The loss of its node is not a failure of its version."""
        replica = self._replicas.pop(replica_id, None)
        if replica is None:
            return
        self._serving[replica.deployment] -= replica.is_serving
        is_failure = not replica.is_leaving and not replica.unhealthy
        if is_failure:
            self._records.count_restart(replica, RestartReason.NODE_LOST if is_node_lost else RestartReason.DIED)
        if is_failure and not is_node_lost:
            self._records.count_failure(replica, message)
        self._records.record_end(replica, message)
        self._departed.append(
            DepartedReplica(
                replica_id=replica_id,
                deployment=replica.deployment,
                at_s=self.clock(),
                is_lost=replica.is_placed and (is_failure or is_node_lost),
                is_node_lost=is_node_lost,
                bundles=replica.bundles,
                bundle_nodes=replica.bundle_nodes,
            )
        )
        self._on_change()

    def expect(
        self, versions: Set[tuple[DeploymentKey, str]], targets: Mapping[DeploymentKey, DeploymentTarget]
    ) -> None:
        """What is wanted: versions, and of each deployment. Forgets what happened to others."""
        self._serving = +self._serving  # without those of which none serves, which may be gone
        self._records.disruptions.expect(targets, self._serving)
        self._records.keep(versions)

    def restart_failures(self, key: DeploymentKey, version: str) -> None:
        self._records.restart(key, version)

    def _moved(self, replica: Replica, event: ReplicaEvent) -> None:
        state = next_state(REPLICA_TRANSITIONS, replica.state, event)
        since_at_s = replica.since_at_s if state == replica.state else self.clock()
        self.put_replica(replace(replica, state=state, since_at_s=since_at_s))


def _first_end(replica: Replica, ends_at_s: Mapping[str, float | None]) -> float | None:
    """When the first of its nodes ends. None: all stay."""
    ends = [end_at_s for node_id in replica.bundle_nodes if (end_at_s := ends_at_s.get(node_id)) is not None]
    return min(ends, default=None)


def actor_name_of(replica: Replica) -> str:
    return replica.actor_name or replica_name(replica.deployment, replica.replica_id, replica.version)
