"""The seam between the controller and the cluster."""

from __future__ import annotations

from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.controller.plan.cluster_picture import Node
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.v1 import control_pb2


class ActorCallError(Exception):
    """An actor's method raised, or the actor could not be started or reached. The text is for the status."""


class ActorDiedError(ActorCallError):
    """The actor's process has ended."""

    def __init__(self, message: str, *, is_node_lost: bool = False) -> None:
        super().__init__(message)
        self.is_node_lost = is_node_lost
        """It went with its node."""


class MethodMissingError(ActorCallError):
    """The actor's process is of an earlier version of the mesh, which lacks the method. It was not called."""


class ActorUnreachableError(ActorCallError):
    """It is not known whether the actor lives: it is exiting, or the network is broken."""


M = TypeVar("M", bound=Message)


def read_answer(kind: type[M], answer: bytes | None) -> M:
    """The answer as a message of `kind`. Raises ActorCallError for anything else, since user code may corrupt it."""
    try:
        return kind.FromString(answer or b"")
    except DecodeError as error:
        raise ActorCallError(f"its process did not answer with a {kind.DESCRIPTOR.name}") from error


class Runtime(Protocol):
    """What the controller needs of the cluster. Every method may raise ActorCallError and nothing else."""

    async def spawn_replica(self, name: str, spec: control_pb2.ReplicaSpec, assignment: NodeAssignment) -> None:
        """Start the actor, and before it the placement group of the same name if its options ask for one."""
        ...

    async def spawn_gateway(self, name: str, spec: control_pb2.GatewaySpec) -> None: ...

    async def spawn_policy(self, name: str, spec: control_pb2.PolicySpec, actor: control_pb2.ActorOptions) -> None:
        """Start an actor that takes no resources, in the runtime environment of `actor`."""

    async def wait_placed(self, name: str) -> tuple[str, ...]:
        """Wait until the actor has a process; return the node ids of its bundles, that of its process first."""
        ...

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        """What the actor's method answers. Raises MethodMissingError where its process has no such method."""
        ...

    async def kill(self, name: str) -> None: ...

    async def refuses(self, address: str) -> bool:
        """Whether the host of "host:port" refuses connections to that port. False for an empty address."""
        ...

    async def release(self, name: str) -> None:
        """Remove the placement group of that name, if there is one."""

    async def actor_names(self) -> list[str]: ...

    async def pending_actor_names(self) -> list[str]:
        """Names of the actors that have no process yet."""
        ...

    async def memory_deaths(self, within_s: float) -> dict[str, str]:
        """Names of actors that were killed within this time because their node ran out of memory, with the reason."""
        ...

    async def placement_group_names(self) -> list[str]:
        """Names of the placement groups of replicas, also of replicas that have ended."""
        ...

    async def nodes(self) -> list[Node]:
        """The living nodes."""
        ...
