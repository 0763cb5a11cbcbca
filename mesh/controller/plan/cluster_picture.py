"""What the controller observes, as frozen records: replicas, gateways, nodes and recent failures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mesh.controller.desired.resource_request import Bundle
from mesh.controller.plan.replica_state import SERVING
from mesh.options.deployments.drain_policy import DEFAULT_DRAIN, DrainPolicy
from mesh.routing.snapshot import DeploymentKey
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    replica_id: str
    deployment: DeploymentKey
    version: str
    config_version: str = ""
    """Version of the configuration that the replica has."""
    next_config_version: str = ""
    """Version of the configuration that it is taking over."""
    reconfigured_at_s: float = -math.inf
    """When it last took over a configuration while it served."""
    state: ReplicaState = ReplicaState.STARTING
    since_at_s: float = 0.0
    """When it came into its state."""
    created_at_s: float = 0.0
    ready_at_s: float = 0.0
    """When it began to serve."""
    is_placed: bool = False
    """Its process runs; before, it waits for resources."""
    placed_at_s: float = 0.0
    unhealthy: str = ""
    """Not empty: its start or its health checks failed, and how."""
    not_ready: str = ""
    """Not empty: it runs and takes no calls now, and why."""
    unready_at_s: float | None = None
    """When it came up, or was found, without taking calls. None: it has taken some since."""
    held_at_s: float = 0.0
    """Until when the rollout to its version was paused: its deadlines count from then on at the earliest."""
    checks_ready: bool = False
    """Its code says from time to time whether it takes calls."""
    stop_reasons: tuple[str, ...] = ()
    """Why it is being stopped, and why it was killed meanwhile: texts of `Reason`."""
    health_failures: int = 0
    """Consecutive."""
    drain: DrainPolicy = DEFAULT_DRAIN
    bundles: tuple[Bundle, ...] = ()
    """What it holds of the cluster; its process is in the first."""
    bundle_nodes: tuple[str, ...] = ()
    """Where: as planned until it has a process, then as it is. Empty: not known."""
    avoided_nodes: frozenset[str] = frozenset()
    """Where it must not come to while it waits for its process."""
    node_ends_at_s: float | None = None
    """Its node is being drained: when that ends, infinite where that is unknown. None: the node stays."""
    address: str = ""
    zone: str = ""
    pid: int = 0
    actor_name: str = ""
    """Name of an actor that has not said its version yet; other names follow from deployment, version and id."""
    spec: control_pb2.DeploymentSpec = field(default_factory=control_pb2.DeploymentSpec, compare=False, repr=False)
    """What it was started or last reconfigured with. Its deployment may not be wanted any more, or with another one."""

    @property
    def title(self) -> str:
        """As logs name it."""
        return f"{self.deployment}#{self.replica_id}"

    @property
    def node_id(self) -> str:
        return self.bundle_nodes[0] if self.bundle_nodes else ""

    @property
    def is_leaving(self) -> bool:
        return self.state == ReplicaState.STOPPING

    @property
    def is_migrating(self) -> bool:
        """It serves until another one does in its place."""
        return self.state == ReplicaState.PENDING_MIGRATION

    @property
    def is_up(self) -> bool:
        """It has started, and is not about to end."""
        return self.state in SERVING and not self.unhealthy

    @property
    def is_serving(self) -> bool:
        """It gets calls."""
        return self.is_up and not self.not_ready

    def stays_as(self, version: str) -> bool:
        """It counts towards a target of that version: as far as we know, neither it nor its node is about to end."""
        is_staying = not self.is_leaving and not self.unhealthy and self.node_ends_at_s is None
        return is_staying and self.version == version


@dataclass(frozen=True, slots=True, order=True)
class GatewaySlot:
    """The place of one gateway: at most one process has it."""

    node_id: str
    index: int = 0
    """Among those of its node. The first one has the HTTP port."""
    revision: int = 0
    """Revision of its options: how often those of the mesh had changed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    gateway_id: str
    slot: GatewaySlot
    state: GatewayStatus = GatewayStatus.STARTING
    since_at_s: float = 0.0
    drain: DrainPolicy = DEFAULT_DRAIN
    health_failures: int = 0
    unhealthy: str = ""
    stop_reasons: tuple[str, ...] = ()
    grpc_address: str = ""
    http_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    node_id: str
    is_head: bool = False
    total: Mapping[str, float] = field(default_factory=dict)
    """Resources by name: CPU and GPU in units, memory in bytes."""
    available: Mapping[str, float] = field(default_factory=dict)
    """The same that is free, as last reported. A resource that is used up may be missing."""
    address: str = ""
    """Address of the node's machine."""
    ends_at_s: float | None = None
    """It is being drained: when it ends, infinite where that is unknown. None: it stays."""
    is_cordoned: bool = False
    """By an operator: it takes no new replicas."""
    is_emptied: bool = False
    """An operator drains it, and it stays until that is done: nothing on it has to hurry."""

    @property
    def takes_replicas(self) -> bool:
        return self.ends_at_s is None and not self.is_cordoned


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartedReplica:
    """A replica that has gone lately."""

    replica_id: str
    deployment: DeploymentKey
    at_s: float
    is_lost: bool
    """It died, without a Drain to its callers."""
    is_node_lost: bool = False
    """Probably with its node, even if Ray still lists that."""
    bundles: tuple[Bundle, ...] = ()
    bundle_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Recent failures of one version of a deployment, of one of its configurations, or of the gateways of one slot."""

    version: str = ""
    """The version that failed: of a deployment, or of its configuration."""
    count: int = 0
    last_at_s: float = 0.0
    message: str = ""
    has_succeeded: bool = False
    """At least one replica of the version took calls."""
    has_hung: bool = False
    """A constructor of the version did not return, or a replica was not ready, within the progress deadline."""


NO_FAILURES = Failures()


class RestartReason(StrEnum):
    """Why a replica that was to stay is lost. Another one is started in its place unless its version is given up."""

    DIED = "died"
    NODE_LOST = "node_lost"
    UNHEALTHY = "unhealthy"
    """It failed its health checks."""
    START_FAILED = "start_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a replica that failed."""

    replica_id: str
    version: str
    node_id: str
    """Empty: it was not placed."""
    at_s: float
    reason: str
    """In words, one line."""


DEATHS_MAX = 5
"""How many of a deployment are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What happened to the replicas of one deployment since the controller started."""

    restarts: Mapping[RestartReason, int] = field(default_factory=dict)
    failed_checks: int = 0
    """Health checks."""
    deaths: tuple[Death, ...] = ()
    """The last ones, newest first."""

    def with_restart(self, reason: RestartReason) -> Tally:
        return replace(self, restarts={**self.restarts, reason: self.restarts.get(reason, 0) + 1})

    def with_failed_check(self) -> Tally:
        return replace(self, failed_checks=self.failed_checks + 1)

    def with_death(self, death: Death) -> Tally:
        return replace(self, deaths=(death, *self.deaths)[:DEATHS_MAX])


NO_TALLY = Tally()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    replicas: tuple[Replica, ...] = ()
    last_ended: Mapping[DeploymentKey, str] = field(default_factory=dict)
    """The replica of each deployment that ended last, and why, in words."""
    tallies: Mapping[DeploymentKey, Tally] = field(default_factory=dict)
    gateways: tuple[Gateway, ...] = ()
    nodes: tuple[Node, ...] = ()
    cordoned_ids: frozenset[str] = frozenset()
    """Ids of all nodes that an operator has cordoned, including those that the list of nodes lacks."""
    replica_failures: Mapping[tuple[DeploymentKey, str], Failures] = field(default_factory=dict)
    """By deployment and version."""
    config_failures: Mapping[tuple[DeploymentKey, str], Failures] = field(default_factory=dict)
    """By deployment and version: of configurations that running replicas were to take over."""
    gateway_failures: Mapping[GatewaySlot, Failures] = field(default_factory=dict)
    departed: tuple[DepartedReplica, ...] = ()

    def is_free(self, node: Node) -> bool:
        """It has neither a replica nor a gateway, which the head keeps: see mesh/controller/plan/gateway_plan.py.

        A replica of an earlier controller that does not say yet where it is may be on any node.
        """
        has_gateway = any(each.slot.node_id == node.node_id for each in self.gateways)
        placed = (each for each in self.replicas if each.is_placed)
        has_replica = any(not each.bundle_nodes or node.node_id in each.bundle_nodes for each in placed)
        return not has_replica and (node.is_head or not has_gateway)

    def failures_of(self, key: DeploymentKey, version: str) -> Failures:
        """Failures of that version; those of another one do not count."""
        return self.replica_failures.get((key, version), NO_FAILURES)

    def config_failures_of(self, key: DeploymentKey, version: str, config_version: str) -> Failures:
        """Failures of that configuration of the version."""
        failures = self.config_failures.get((key, version), NO_FAILURES)
        return failures if failures.version == config_version else NO_FAILURES

    def by_deployment(self) -> dict[DeploymentKey, list[Replica]]:
        groups: dict[DeploymentKey, list[Replica]] = {}
        for replica in self.replicas:
            groups.setdefault(replica.deployment, []).append(replica)
        return groups
