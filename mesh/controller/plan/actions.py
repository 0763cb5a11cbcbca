"""The actions of a plan, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.controller.plan.cluster_picture import GatewaySlot
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.routing.snapshot import DeploymentKey


class Reason(StrEnum):
    """Why something is started, stopped or killed, in the words of logs and of the status."""

    SCALE_UP = "fewer than wanted"
    REPLACEMENT = "replaces one that failed"
    UPDATE = "another version is wanted"
    CONFIGURATION = "another configuration is wanted"
    KEPT = "the version before keeps its number"
    SCALE_DOWN = "more than wanted"
    UNHEALTHY = "unhealthy"
    START_FAILED = "failed to start"
    UNSCHEDULABLE = "its node has no room"
    NODE_DRAIN = "its node is being drained"
    CORDON = "nodes were cordoned or uncordoned while it waited"
    MAKE_ROOM = "makes room for a new version"
    DELETED = "deleted"
    SHUTDOWN = "the mesh shuts down"
    UNWANTED_NODE = "its node needs no gateway"
    OPTIONS = "its options have changed"
    OVERDUE = "did not stop in time"
    ADOPTED = "an earlier controller began to stop it"


@dataclass(frozen=True, slots=True)
class StartReplica:
    deployment: DeploymentKey
    assignment: NodeAssignment
    reason: Reason
    is_predecessor: bool = False
    """Whether it has the version before, which is kept until the wanted one is proven, or the configuration before."""
    is_canary: bool = False


@dataclass(frozen=True, slots=True)
class ReconfigureReplica:
    replica_id: str
    reason: Reason = Reason.CONFIGURATION


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Takes it out of the snapshots, then drains it."""

    replica_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class KillReplica:
    replica_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class StartGateway:
    slot: GatewaySlot
    reason: Reason
    replaces: GatewaySlot | None = None
    """The gateway whose ports it takes over."""


@dataclass(frozen=True, slots=True)
class StopGateway:
    gateway_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class KillGateway:
    gateway_id: str
    reason: Reason


ReplicaAction = StartReplica | ReconfigureReplica | StopReplica | KillReplica
GatewayAction = StartGateway | StopGateway | KillGateway
Action = ReplicaAction | GatewayAction


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    problems: Mapping[DeploymentKey, Exception] = field(default_factory=dict)
    """Deployments for which no plan could be made. Nothing is done about them."""
