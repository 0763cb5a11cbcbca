"""An actor of the fake cluster, what may befall it, and what its policy answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.controller.plan.replica_placement import ANYWHERE, NodeAssignment
from mesh.v1 import control_pb2


@dataclass
class Faults:
    """How likely things go wrong; all zero: a calm cluster."""

    spawn: float = 0.0
    constructor: float = 0.0
    hang_in_drain: float = 0.0
    sick: float = 0.0
    """Chance of a failing health check."""
    lost: float = 0.0
    """Chance of a message that does not arrive, and of an answer that does not."""
    late: float = 0.0
    """Chance of a message that takes seconds."""
    twice: float = 0.0
    """Chance of a message that arrives twice."""
    slow_constructor: float = 0.0
    kv: float = 0.0
    """Chance of a KV request that is lost, and of an answer that is."""
    short_list: float = 0.0
    """Chance of a list of nodes that lacks some."""
    late_list: float = 0.0
    """Chance of a list of nodes that takes long."""


@dataclass(eq=False)
class Actor:
    name: str
    spec: control_pb2.ReplicaSpec | control_pb2.GatewaySpec | control_pb2.PolicySpec
    assignment: NodeAssignment = ANYWHERE
    node_id: str = ""
    """Where its process is."""
    is_placed: asyncio.Event = field(default_factory=asyncio.Event)
    began_at_s: float = 0.0
    """When its process did."""
    start: asyncio.Task[None] | None = None
    started_at_s: float | None = None
    """When it began to serve."""
    is_draining: bool = False
    rejected: tuple[str, str] = ("", "")
    """The version of the configuration that it refused last, and why."""
    ongoing: int = 0
    """Calls it executes."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_started(self) -> bool:
        return self.started_at_s is not None

    @is_started.setter
    def is_started(self, value: bool) -> None:
        self.started_at_s = asyncio.get_running_loop().time() if value else None

    @property
    def is_serving(self) -> bool:
        return self.is_started and not self.is_draining and not self.closed.is_set()


Policy = Callable[[Actor, control_pb2.PolicyQuestion], Awaitable[float]]


ApplicationPolicy = Callable[[Mapping[str, control_pb2.PolicyQuestion]], Mapping[str, float]]


async def no_policy(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
    raise ActorCallError("no test has said what to answer")


def cpus_of(actor: Actor) -> float:
    return actor.spec.spec.options.actor.num_cpus if isinstance(actor.spec, control_pb2.ReplicaSpec) else 0.0


def is_bound(actor: Actor) -> bool:
    if isinstance(actor.spec, control_pb2.ReplicaSpec):
        return actor.spec.spec.options.max_replicas_per_node > 0
    return bool(actor.assignment.node_ids)
