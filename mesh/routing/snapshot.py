"""Owns the immutable picture of a deployment's ready replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mesh.v1 import control_pb2


class DeploymentKey(NamedTuple):
    """Names one deployment of one application."""

    app: str
    name: str

    def __str__(self) -> str:
        return f"{self.app}#{self.name}"


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    replica_id: str
    address: str
    node_id: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ready replicas at one version. `unavailable` is not empty when none is there and none will come."""

    deployment: DeploymentKey
    version: int
    replicas: tuple[ReplicaInfo, ...] = ()
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    unavailable: str = ""
    load_interval_s: float = 0.0
    """How often the controller wants to hear how busy callers are; 0: not at all."""
    lost: frozenset[str] = frozenset()
    """Replicas that have died lately."""
    starts_on_demand: bool = False
    """It may have no replica while nobody calls; the first call starts one."""
    is_missing: bool = False
    """It is not deployed."""


def read_snapshot(message: control_pb2.DeploymentSnapshot) -> Snapshot:
    return Snapshot(
        deployment=DeploymentKey(message.deployment.app, message.deployment.name),
        version=message.version,
        replicas=tuple(
            ReplicaInfo(replica.replica_id, replica.address, replica.node_id, replica.zone)
            for replica in message.replicas
        ),
        max_ongoing_requests=message.max_ongoing_requests,
        max_queued_requests=message.max_queued_requests,
        unavailable=message.unavailable,
        load_interval_s=message.load_interval_s,
        lost=frozenset(message.lost_replica_ids),
        starts_on_demand=message.starts_on_demand,
        is_missing=message.is_missing,
    )
