"""Owns the seam between the controller and the cluster, and how actors are named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.controller.plan.cluster_picture import Node
from mesh.controller.plan.replica_placement import Spot
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

REPLICA_PREFIX = "MESH_REPLICA::"
GATEWAY_PREFIX = "MESH_GATEWAY::"
POLICY_PREFIX = "MESH_POLICY::"


class ActorCallError(Exception):
    """An actor's method raised, or the actor could not be started or reached. The text is for the status."""


class ActorDiedError(ActorCallError):
    """The actor's process has ended."""

    def __init__(self, message: str, *, is_node_lost: bool = False) -> None:
        super().__init__(message)
        self.is_node_lost = is_node_lost
        """It went with its node."""


class ActorUnreachableError(ActorCallError):
    """Nobody can say whether the actor lives: it is exiting, or the network is broken."""


M = TypeVar("M", bound=Message)


def read_answer(kind: type[M], answer: bytes | None) -> M:
    """An actor's answer. User code shares its process, so it may be anything: then ActorCallError is raised."""
    try:
        return kind.FromString(answer or b"")
    except DecodeError as error:
        raise ActorCallError(f"its process answers with what is no {kind.DESCRIPTOR.name}") from error


class Runtime(Protocol):
    """What the controller needs of the cluster. Every method may raise ActorCallError, and only that."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, spot: Spot) -> None:
        """With its placement group, if it has one, which bears its name."""
        ...

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None: ...

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        """An actor that takes no resources, with the runtime environment of `actor`."""

    async def wait_placed(self, name: str) -> tuple[str, ...]:
        """When the actor has a process: the nodes of its bundles, its own first."""
        ...

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None: ...

    async def kill(self, name: str) -> None: ...

    async def refuses(self, address: str) -> bool:
        """Whether the host is there and nobody listens at "host:port"; no for an empty address."""
        ...

    async def release(self, name: str) -> None:
        """Remove the placement group of that name, if there is one."""

    async def actor_names(self) -> list[str]: ...

    async def pending_actor_names(self) -> list[str]:
        """Those that have no process yet."""
        ...

    async def memory_deaths(self, within_s: float) -> dict[str, str]:
        """Actors that were killed lately because their node ran out of memory, with the reason for the status."""
        ...

    async def placement_group_names(self) -> list[str]:
        """Those of replicas, also where the replica is gone."""
        ...

    async def nodes(self) -> list[Node]:
        """The living ones."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaName:
    """The name of a replica's actor tells who it is before it has a process that could be asked."""

    deployment: DeploymentKey
    replica_id: str
    version_digest: str

    @classmethod
    def read(cls, name: str) -> ReplicaName | None:
        """From what `replica_name` has made; None for another name."""
        parts = name.removeprefix(REPLICA_PREFIX).rsplit("#", 3)
        if len(parts) != 4:
            return None
        app, deployment, version_digest, replica_id = parts
        return cls(DeploymentKey(app, deployment), replica_id, version_digest)

    def is_of(self, version: str) -> bool:
        return self.version_digest == _digest(version)


def replica_name(key: DeploymentKey, replica_id: str, version: str) -> str:
    return f"{REPLICA_PREFIX}{key}#{_digest(version)}#{replica_id}"


def _digest(version: str) -> str:
    """Versions are of any length, and may be words of the user's."""
    return hashlib.sha256(version.encode()).hexdigest()[:8]


def policy_name(key: DeploymentKey, policy_id: str) -> str:
    return f"{POLICY_PREFIX}{key}#{policy_id}"


def gateway_name(node_id: str) -> str:
    return f"{GATEWAY_PREFIX}{node_id}"
