"""Owns the actions a plan consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.controller.plan.replica_placement import ANYWHERE, Spot
from mesh.routing.snapshot import DeploymentKey


@dataclass(frozen=True, slots=True)
class StartReplica:
    deployment: DeploymentKey
    spot: Spot = ANYWHERE


@dataclass(frozen=True, slots=True)
class ReconfigureReplica:
    replica_id: str


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Takes it out of the snapshots, then drains it."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class KillReplica:
    replica_id: str


@dataclass(frozen=True, slots=True)
class StartGateway:
    node_id: str


@dataclass(frozen=True, slots=True)
class StopGateway:
    gateway_id: str


@dataclass(frozen=True, slots=True)
class KillGateway:
    gateway_id: str


ReplicaAction = StartReplica | ReconfigureReplica | StopReplica | KillReplica
GatewayAction = StartGateway | StopGateway | KillGateway
Action = ReplicaAction | GatewayAction


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    problems: Mapping[DeploymentKey, Exception] = field(default_factory=dict)
    """Deployments for which no plan could be made. Nothing is done about them."""
