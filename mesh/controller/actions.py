"""Owns the actions a plan consists of."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.controller.placement import ANYWHERE, Spot
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


Action = StartReplica | ReconfigureReplica | StopReplica | KillReplica | StartGateway | StopGateway | KillGateway


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
