"""For classes that choose the replicas of a deployment's calls; docs/load-balancing.md shows one."""

from mesh.context import ReplicaId as ReplicaID
from mesh.routing.custom.router_contract import (
    FIFOMixin,
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaResult,
    RequestMetadata,
    RequestRouter,
    RunningReplica,
)

__all__ = [
    "FIFOMixin",
    "LocalityMixin",
    "MultiplexMixin",
    "PendingRequest",
    "ReplicaID",
    "ReplicaResult",
    "RequestMetadata",
    "RequestRouter",
    "RunningReplica",
]
