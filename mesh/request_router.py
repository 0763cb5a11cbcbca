"""For classes that choose the replicas of a deployment's calls; docs/load-balancing.md shows one."""

from mesh.routing.custom.router_contract import (
    FIFOMixin,
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestMetadata,
    RequestRouter,
    RunningReplica,
)

__all__ = [
    "FIFOMixin",
    "LocalityMixin",
    "MultiplexMixin",
    "PendingRequest",
    "RequestMetadata",
    "RequestRouter",
    "RunningReplica",
]
