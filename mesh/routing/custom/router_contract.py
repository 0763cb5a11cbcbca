"""What a class that chooses replicas derives from, and what it gets: `mesh.request_router` has the public names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from mesh.cluster.keys import DeploymentKey
from mesh.context import ReplicaId
from mesh.wire.payload import Payload, decode

ReplicaResult: TypeAlias = object
"""For annotations of `on_request_routed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningReplica:
    """A replica that calls can be sent to, as this caller knows it."""

    replica_id: ReplicaId
    node_id: str = ""
    availability_zone: str = ""
    queue_len: int = 0
    """Calls that it has: our own, and those of other callers at its last report."""
    max_ongoing_requests: int = 5
    multiplexed_model_ids: frozenset[str] = frozenset()
    """Models that it holds or loads."""
    routing_stats: Mapping[str, Any] = field(default_factory=dict)
    """What its `record_routing_stats` returned last; empty before, and where there is none."""
    replica_metadata: Mapping[str, Any] = field(default_factory=dict)
    """What its `record_replica_metadata` returned when it started."""

    def __hash__(self) -> int:
        return hash(self.replica_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetadata:
    """What is known of a call without reading its arguments."""

    request_id: str = ""
    app_name: str = ""
    """The application that the client request is for."""
    method_name: str = "__call__"
    is_streaming: bool = False
    """Whether the response is a stream."""
    multiplexed_model_id: str = ""
    session_id: str = ""
    tenant: str = ""
    route: str = ""
    invocation_metadata: Sequence[tuple[str, str | bytes]] = ()
    """gRPC metadata."""

    @property
    def call_method(self) -> str:
        """The method by its name in Ray Serve."""
        return self.method_name


@dataclass(eq=False)
class PendingRequest:
    """A call that waits for a replica."""

    metadata: RequestMetadata
    created_at: float = 0.0
    """When the call was made, in Unix time."""
    _payload: Payload | None = field(default=None, repr=False)
    _arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments, read when this is asked for; for calls of gRPC clients the bytes of the message."""
        return self._read()[0]

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self._read()[1]

    def _read(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._arguments is None:
            value = decode(self._payload) if self._payload is not None else ((), {})
            self._arguments = value if isinstance(value, tuple) else ((value,), {})
        return self._arguments


class RequestRouter:
    """Chooses replicas for the calls of one process to one deployment.

    Derive from it, define `choose_replicas`, and name the class in the deployment's `request_router_config`. It runs in
    a thread of its own in each process that calls the deployment, gateways among them.
    """

    deployment_id: DeploymentKey
    """The deployment that is called. Set before `initialize_state`."""
    node_id: str = ""
    """The node of this process."""
    availability_zone: str = ""
    curr_replicas: Mapping[ReplicaId, RunningReplica] = MappingProxyType({})
    """The candidates of the latest `choose_replicas`, by id."""

    def initialize_state(self, *args: Any, **kwargs: Any) -> None:
        """Called once, first, with `request_router_kwargs`."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest
    ) -> list[list[RunningReplica]]:
        """Groups of candidates, the preferred group first.

        The call goes to the less loaded of two replicas of the first group with a free place, and to no replica that is
        in no group. If all are full it waits for one of them, and is asked for again. Without any it is asked for
        again soon. By default all candidates are one group.
        """
        del pending_request
        return [candidate_replicas]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaId, result: ReplicaResult) -> None:
        """The call was sent to this replica. `result` is None: it is not there yet."""

    def select_available_replicas(self, candidates: Iterable[RunningReplica] | None = None) -> list[RunningReplica]:
        """Those with a free place, of `candidates` or, without any, of all."""
        asked = self.curr_replicas.values() if candidates is None else candidates
        return [each for each in asked if each.queue_len < each.max_ongoing_requests]


class FIFOMixin:
    """Calls for the same replicas are sent in the order in which they came: always so here."""


class LocalityMixin:
    """Ranks replicas by their distance."""

    node_id: str
    availability_zone: str

    def rank_replicas_via_locality(self, replicas: Sequence[RunningReplica]) -> list[list[RunningReplica]]:
        """Those of the same node, then those of the same zone, then the others; without empty groups."""
        near: list[list[RunningReplica]] = [[], [], []]
        for replica in replicas:
            is_same_zone = bool(self.availability_zone) and replica.availability_zone == self.availability_zone
            near[0 if replica.node_id == self.node_id else 1 if is_same_zone else 2].append(replica)
        return [group for group in near if group]


class MultiplexMixin:
    """Ranks replicas by the models that they hold."""

    def rank_replicas_via_multiplex(
        self, replicas: Sequence[RunningReplica], multiplexed_model_id: str
    ) -> list[list[RunningReplica]]:
        """Those that hold the model, then the others, those with fewer models first; without empty groups."""
        holders = [each for each in replicas if multiplexed_model_id in each.multiplexed_model_ids]
        others: dict[int, list[RunningReplica]] = {}
        for replica in replicas:
            if multiplexed_model_id not in replica.multiplexed_model_ids:
                others.setdefault(len(replica.multiplexed_model_ids), []).append(replica)
        return [group for group in (holders, *(others[count] for count in sorted(others))) if group]
