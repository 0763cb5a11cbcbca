"""Owns the seam between the controller and the cluster, and how actors are named."""

from __future__ import annotations

from typing import Protocol

from mesh.controller.observe import Node
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

REPLICA_PREFIX = "MESH_REPLICA::"
GATEWAY_PREFIX = "MESH_GATEWAY::"
POLICY_PREFIX = "MESH_POLICY::"


class ActorCallFailed(Exception):
    """An actor's method raised, or the actor could not be started or reached. The text is for the status."""


class ActorGone(ActorCallFailed):
    """The actor's process has ended."""


class ActorOutOfReach(ActorCallFailed):
    """Nobody can say whether the actor lives: it is exiting, or the network is broken."""


class Runtime(Protocol):
    """What the controller needs of the cluster. Every method may raise ActorCallFailed, and only that."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec) -> None: ...

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None: ...

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        """An actor that takes no resources, with the runtime environment of `actor`."""

    async def wait_placed(self, name: str) -> None:
        """Returns when the actor has a process."""

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None: ...

    async def kill(self, name: str) -> None: ...

    async def actor_names(self) -> list[str]: ...

    async def nodes(self) -> list[Node]:
        """The living ones."""
        ...


def replica_name(key: DeploymentKey, replica_id: str) -> str:
    return f"{REPLICA_PREFIX}{key}#{replica_id}"


def policy_name(key: DeploymentKey, policy_id: str) -> str:
    return f"{POLICY_PREFIX}{key}#{policy_id}"


def gateway_name(node_id: str) -> str:
    return f"{GATEWAY_PREFIX}{node_id}"
