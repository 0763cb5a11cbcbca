"""Immutable snapshots of a deployment's ready replicas, as the controller publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mesh.cluster.keys import DeploymentKey as DeploymentKey
from mesh.routing.choice.traffic_split import TrafficRule
from mesh.v1 import control_pb2
from mesh.wire.outcome import BackpressureAnswer, read_answer

_NO_VERSIONS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    replica_id: str
    address: str
    """host:port."""
    node_id: str = ""
    zone: str = ""
    version: str = ""
    """Version of the replica's code and options; only known where the application has a canary."""


class RouterSpec(NamedTuple):
    """What a deployment says of its own request router."""

    import_path: str
    """"package.module:Class"."""
    kwargs_json: str = "{}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ready replicas at one version."""

    deployment: DeploymentKey
    version: int
    replicas: tuple[ReplicaInfo, ...] = ()
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    unavailable: str = ""
    """Why there is no replica and none will start; empty otherwise."""
    load_interval_s: float = 0.0
    """How often callers report their load to the controller; 0: never."""
    lost: frozenset[str] = frozenset()
    """Replicas that died recently, by id."""
    starts_on_demand: bool = False
    """It may have no replica while there are no calls; the first call starts one."""
    queue_timeout_s: float = 0.0
    """How long a call may wait in its caller; 0: no limit."""
    is_missing: bool = False
    """It is not deployed."""
    backpressure: BackpressureAnswer | None = None
    """What HTTP clients of refused calls get; None: what is usual."""
    request_router: RouterSpec | None = None
    """The class that chooses replicas; None: the usual rules."""
    traffic: TrafficRule | None = None
    """Which requests of the application a canary serves; None: it has no canary."""


def read_snapshot(message: control_pb2.DeploymentSnapshot, known: Snapshot | None = None) -> Snapshot | None:
    """The snapshot that a message carries, as a whole or as a change of `known`, the one before.

    None: a change of a snapshot that this process no longer has. Raises ValueError for a change of another version than
    the known one: the stream has to begin again.
    """
    replicas = {each.replica_id: _read_replica(each) for each in message.replicas}
    if message.changes_version:
        if known is None:
            return None
        if known.version != message.changes_version:
            raise ValueError(
                f"A change of version {message.changes_version} of {known.deployment} came after {known.version}."
            )
        removed = frozenset(message.removed_replica_ids)
        replicas = {each.replica_id: each for each in known.replicas if each.replica_id not in removed} | replicas
    return Snapshot(
        deployment=DeploymentKey(message.deployment.app, message.deployment.name),
        version=message.version,
        replicas=tuple(replicas.values()),
        max_ongoing_requests=message.max_ongoing_requests,
        max_queued_requests=message.max_queued_requests,
        queue_timeout_s=message.queue_timeout_s,
        unavailable=message.unavailable,
        load_interval_s=message.load_interval_s,
        lost=frozenset(message.lost_replica_ids),
        starts_on_demand=message.starts_on_demand,
        is_missing=message.is_missing,
        backpressure=read_answer(message.backpressure) if message.HasField("backpressure") else None,
        request_router=read_router(message.request_router),
        traffic=read_rule(message.deployment.app, message.traffic, message.canary_version, message.canary_versions)
        if message.HasField("traffic")
        else None,
    )


def read_router(message: control_pb2.RequestRouter) -> RouterSpec | None:
    return RouterSpec(message.import_path, message.kwargs_json) if message.import_path else None


def read_rule(
    app: str, rule: control_pb2.TrafficRule, version: str = "", canary_versions: Mapping[str, str] = _NO_VERSIONS
) -> TrafficRule:
    return TrafficRule(app, version, rule.percent / 100, rule.header, rule.value, frozenset(canary_versions.items()))


def _read_replica(replica: control_pb2.ReplicaInfo) -> ReplicaInfo:
    return ReplicaInfo(replica.replica_id, replica.address, replica.node_id, replica.zone, replica.version)
