"""The metric families of the controller, and their samples at a scrape. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum

from mesh.controller.plan.cluster_picture import NO_TALLY, RestartReason
from mesh.controller.plan.replica_state import SERVING
from mesh.controller.report.mesh_picture import ControllerIdentity, MeshPicture
from mesh.controller.report.status_report import build_status
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus, DeploymentStatus, GatewayStatus, NodeStatus, ReplicaState
from mesh.v1 import control_pb2
from mesh.wire.telemetry import COUNTER, GAUGE, Family, Sample

_DEPLOYMENT = ("application", "deployment")
_ONE_OF = "1 for the present status, 0 for the others."
APPLICATION_STATUS = Family("mesh_application_status", GAUGE, _ONE_OF, ("application", "status"))
DEPLOYMENT_STATUS = Family("mesh_deployment_status", GAUGE, _ONE_OF, (*_DEPLOYMENT, "status"))
WANTED = Family("mesh_deployment_replicas_wanted", GAUGE, "Replicas that are to run.", _DEPLOYMENT)
RUNNING = Family("mesh_deployment_replicas_running", GAUGE, "Replicas that serve, of any version.", _DEPLOYMENT)
REPLICAS = Family(
    "mesh_replicas", GAUGE, "Replicas of all deployments by state: those that start are a queue.", ("state",)
)
PLACES = Family("mesh_deployment_places", GAUGE, "Calls that the running replicas can execute at a time.", _DEPLOYMENT)
RESTARTS = Family(
    "mesh_replica_restarts_total", COUNTER, "Replicas that failed and were replaced.", (*_DEPLOYMENT, "reason")
)
FAILED_CHECKS = Family("mesh_replica_failed_health_checks_total", COUNTER, "Health checks that failed.", _DEPLOYMENT)
GATEWAYS_WANTED = Family("mesh_gateways_wanted", GAUGE, "Gateways that are to run.")
GATEWAYS = Family("mesh_gateways", GAUGE, "Gateways by status.", ("status",))
NODES = Family("mesh_nodes", GAUGE, "Nodes by status: which take new replicas.", ("status",))
START_TIME = Family("mesh_controller_start_time_seconds", GAUGE, "Unix time at which the controller started.")
CONTROLLER_RESTARTS = Family("mesh_controller_restarts", GAUGE, "Restarts of the controller since the mesh started.")
TURN_AGE = Family("mesh_controller_turn_age_seconds", GAUGE, "Time since the control loop last completed a turn.")


def controller_samples(picture: MeshPicture, identity: ControllerIdentity) -> Iterator[tuple[Family, list[Sample]]]:
    """What the status says, as numbers, and what only the controller has counted."""
    status = build_status(picture)
    yield (
        APPLICATION_STATUS,
        [each for app in status.applications for each in _one_of(ApplicationStatus, app.status, (app.name,))],
    )
    deployments = [((app.name, each.name), each) for app in status.applications for each in app.deployments]
    yield (
        DEPLOYMENT_STATUS,
        [sample for labels, each in deployments for sample in _one_of(DeploymentStatus, each.status, labels)],
    )
    yield WANTED, [Sample(labels, each.target_replicas) for labels, each in deployments]
    yield RUNNING, [Sample(labels, _running(each.replicas)) for labels, each in deployments]
    states = Counter(replica.state for _, each in deployments for replica in each.replicas)
    yield REPLICAS, [Sample((state,), states[state]) for state in ReplicaState]
    yield PLACES, [Sample(labels, each.places) for labels, each in deployments]
    tallies = [(labels, picture.observed.tallies.get(DeploymentKey(*labels), NO_TALLY)) for labels, _ in deployments]
    # All reasons, also those that have not occurred: Prometheus sees an increase only from a known number.
    yield (
        RESTARTS,
        [
            Sample((*labels, reason), tally.restarts.get(reason, 0))
            for labels, tally in tallies
            for reason in RestartReason
        ],
    )
    yield FAILED_CHECKS, [Sample(labels, tally.failed_checks) for labels, tally in tallies]
    yield GATEWAYS_WANTED, [Sample((), status.gateways_wanted)]
    present = [gateway.status for gateway in status.gateways]
    yield GATEWAYS, [Sample((each,), present.count(each)) for each in GatewayStatus]
    nodes = [node.status for node in status.nodes]
    yield NODES, [Sample((each,), nodes.count(each)) for each in NodeStatus]
    yield START_TIME, [Sample((), identity.started_unix_s)]
    yield CONTROLLER_RESTARTS, [Sample((), identity.restarts)]
    yield TURN_AGE, [Sample((), picture.turn_age_s)]


def _one_of(kind: type[StrEnum], present: str, labels: tuple[str, ...]) -> Iterator[Sample]:
    return (Sample((*labels, each), float(each == present)) for each in kind)


def _running(replicas: Iterable[control_pb2.ReplicaStatus]) -> int:
    return sum(replica.state in SERVING for replica in replicas)
