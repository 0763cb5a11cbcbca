"""What `mesh.status()` returns: frozen records, and enums that compare equal to their strings."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.v1 import control_pb2


class ApplicationStatus(StrEnum):
    """docs/operations.md says what each one means and what to do."""

    NOT_STARTED = "NOT_STARTED"
    """Never produced; known for compatibility."""
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
    """docs/operations.md says what each one means and what to do."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class DeploymentStatusTrigger(StrEnum):
    """The cause of the latest change of status."""

    UNSPECIFIED = "UNSPECIFIED"
    CONFIG_UPDATE_STARTED = "CONFIG_UPDATE_STARTED"
    CONFIG_UPDATE_COMPLETED = "CONFIG_UPDATE_COMPLETED"
    UPSCALE_COMPLETED = "UPSCALE_COMPLETED"
    DOWNSCALE_COMPLETED = "DOWNSCALE_COMPLETED"
    AUTOSCALING = "AUTOSCALING"
    REPLICA_STARTUP_FAILED = "REPLICA_STARTUP_FAILED"
    HEALTH_CHECK_FAILED = "HEALTH_CHECK_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    """The controller itself fails at this deployment; the message says how."""
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """Where a replica is in its life, as `mesh status` shows it."""

    STARTING = "STARTING"
    UPDATING = "UPDATING"
    """It takes over another configuration, and serves meanwhile."""
    RECOVERING = "RECOVERING"
    """It has not answered a restarted controller yet, and may serve."""
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    PENDING_MIGRATION = "PENDING_MIGRATION"
    """Its node is being drained: it serves until another one does in its place."""


class GatewayStatus(StrEnum):
    """Where a gateway is in its life."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"
    """Never produced, because the controller forgets a drained gateway."""


class NodeStatus(StrEnum):
    """What a node is to the mesh, as `mesh nodes` shows it."""

    READY = "READY"
    CORDONED = "CORDONED"
    """It takes no new replicas."""
    DRAINING = "DRAINING"
    """Its replicas move to other nodes, then its gateways end."""
    DRAINED = "DRAINED"
    """Nothing of the mesh is left there: it can be switched off."""
    LEAVING = "LEAVING"
    """Ray drains it, and it ends after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingStatus:
    """Autoscaling of one deployment: bounds, load and latest decision. Loads are numbers of requests."""

    min_replicas: int
    """The bounds, as they are configured."""
    max_replicas: int
    average_requests: float
    """Queued and ongoing requests, aggregated over the look-back period."""
    current_requests: float
    """The same by the latest reports."""
    decision: str
    """The target and its reason; also a pending other target and since when."""
    problem: str = ""
    """The error of the custom policy; empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOverview:
    """One replica."""

    state: ReplicaState
    version: str = ""
    """Version of the deployment's code and options."""
    age_s: float = 0.0
    """Since the controller began to start it."""
    node_id: str = ""
    """As Ray names it, in hexadecimal; empty until it is placed."""
    pid: int = 0
    """0 until it has a process."""
    address: str = ""
    """ "host:port"; empty until it serves."""
    stop_reason: str = ""
    """Empty while it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathOverview:
    """A replica that failed."""

    replica_id: str
    age_s: float
    """Since its process ended."""
    reason: str
    version: str = ""
    """Version of the deployment's code and options."""
    node_id: str = ""
    """As Ray names it, in hexadecimal; empty if it was not placed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOverview:
    """The process of the controller."""

    pid: int
    node_id: str
    age_s: float
    """Since this process began."""
    restarts: int
    """Since the mesh was started."""
    message: str = ""
    """What it waits for before it acts on many nodes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatusOverview:
    """One deployment of an application."""

    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    """What made it so."""
    replica_states: Mapping[ReplicaState, int]
    """Number of replicas by state; states without replicas are omitted."""
    message: str = ""
    """Why it is not as it was asked for, and what autoscaling decided; empty if there is nothing to say."""
    target_replicas: int = 0
    """How many replicas it is to have now."""
    autoscaling: AutoscalingStatus | None = None
    """None if the number of replicas is fixed."""
    stop_reasons: Mapping[str, str] = field(default_factory=dict)
    """Why replicas are being stopped, by replica id."""
    last_ended: str = ""
    """The replica that ended last, and why. Empty: none since the controller started."""
    busy: float = 0.0
    """Calls that are executed, on average since the last report of each caller."""
    waiting: float = 0.0
    """Calls that wait in their callers for a free place; an average too."""
    places: int = 0
    """Calls that the running replicas can execute at a time."""
    restarts: int = 0
    """Replicas that failed since the controller started. Planned stops do not count."""
    replicas: Mapping[str, ReplicaOverview] = field(default_factory=dict)
    """By replica id."""
    deaths: tuple[DeathOverview, ...] = ()
    """The last five of the replicas in `restarts`, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStatusOverview:
    """One application with its deployments."""

    status: ApplicationStatus
    message: str = ""
    """Why it is not RUNNING, deployment by deployment; empty while it is."""
    last_deployed_time_s: float = 0.0
    """Unix time."""
    deployments: Mapping[str, DeploymentStatusOverview] = field(default_factory=dict)
    """By name of the deployment."""
    docs_path: str | None = None
    """Path of the documentation that its ASGI application serves, below the route prefix; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOverview:
    """One gateway."""

    node_id: str
    """As Ray names it, in hexadecimal."""
    status: GatewayStatus
    grpc_address: str = ""
    """The "host:port" for gRPC clients; empty while it is not open, or if there is no such port."""
    http_address: str = ""
    """The "host:port" of health, routes and metrics; empty likewise, and for all but the first one of a node."""
    message: str = ""
    index: int = 0
    """Among the gateways of its node; see `processes` of `grpc_options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshStatus:
    """The mesh at one moment. Empty when no mesh is running."""

    gateways: tuple[GatewayOverview, ...] = ()
    """By default one per node that has any."""
    proxies: Mapping[str, GatewayStatus] = field(default_factory=dict)
    """The status of gateways by node id, as in Ray Serve. The worst one if a node has several gateways."""
    applications: Mapping[str, ApplicationStatusOverview] = field(default_factory=dict)
    """By name of the application."""
    target_capacity: float | None = None
    """Percent of all replica counts that run, if a configuration file limits it."""
    controller: ControllerOverview | None = None
    """None while no mesh is running."""


def from_reply(reply: control_pb2.StatusReply) -> MeshStatus:
    """The controller's answer as public records."""
    return MeshStatus(
        gateways=tuple(_gateway(gateway) for gateway in reply.gateways),
        proxies=_proxies(reply),
        applications={app.name: _application(app) for app in reply.applications},
        target_capacity=reply.target_capacity if reply.HasField("target_capacity") else None,
        controller=_controller(reply.controller) if reply.HasField("controller") else None,
    )


def serves_fully(canary: control_pb2.CanaryStatus) -> bool:
    """All its replicas run, and it gets requests. Also True of one that there is not."""
    is_complete = all(each.running_replicas >= each.target_replicas for each in canary.deployments)
    return is_complete and not canary.is_closed


def find_application(reply: control_pb2.StatusReply, name: str) -> control_pb2.ApplicationStatus | None:
    """The application of that name; None if there is none."""
    return next((application for application in reply.applications if application.name == name), None)


_BEST_FIRST = (
    GatewayStatus.HEALTHY,
    GatewayStatus.DRAINED,
    GatewayStatus.DRAINING,
    GatewayStatus.STARTING,
    GatewayStatus.UNHEALTHY,
)


def _gateway(gateway: control_pb2.GatewayStatus) -> GatewayOverview:
    return GatewayOverview(
        node_id=gateway.node_id,
        status=GatewayStatus(gateway.status),
        grpc_address=gateway.grpc_address,
        http_address=gateway.http_address,
        message=gateway.message,
        index=gateway.index,
    )


def _proxies(reply: control_pb2.StatusReply) -> dict[str, GatewayStatus]:
    by_place: dict[tuple[str, int], GatewayStatus] = {}
    for gateway in reply.gateways:
        place, status = (gateway.node_id, gateway.index), GatewayStatus(gateway.status)
        # While its options change there are two, of which one serves.
        by_place[place] = min(status, by_place.get(place, status), key=_BEST_FIRST.index)
    by_node: dict[str, GatewayStatus] = {}
    for (node_id, _), status in by_place.items():
        by_node[node_id] = max(status, by_node.get(node_id, status), key=_BEST_FIRST.index)
    return by_node


def _application(app: control_pb2.ApplicationStatus) -> ApplicationStatusOverview:
    return ApplicationStatusOverview(
        status=ApplicationStatus(app.status),
        message=app.message,
        last_deployed_time_s=app.last_deployed_time_s,
        deployments={deployment.name: _deployment(deployment) for deployment in app.deployments},
        docs_path=app.docs_path or None,
    )


def _deployment(deployment: control_pb2.DeploymentStatus) -> DeploymentStatusOverview:
    return DeploymentStatusOverview(
        status=DeploymentStatus(deployment.status),
        status_trigger=DeploymentStatusTrigger(deployment.trigger or DeploymentStatusTrigger.UNSPECIFIED),
        replica_states=dict(Counter(ReplicaState(replica.state) for replica in deployment.replicas)),
        message=deployment.message,
        target_replicas=deployment.target_replicas,
        autoscaling=_autoscaling(deployment.autoscaling) if deployment.HasField("autoscaling") else None,
        stop_reasons={each.replica_id: each.stop_reason for each in deployment.replicas if each.stop_reason},
        last_ended=deployment.last_ended,
        busy=deployment.busy,
        waiting=deployment.waiting,
        places=deployment.places,
        restarts=deployment.restarts,
        replicas={each.replica_id: _replica(each) for each in deployment.replicas},
        deaths=tuple(_death(each) for each in deployment.deaths),
    )


def _replica(replica: control_pb2.ReplicaStatus) -> ReplicaOverview:
    return ReplicaOverview(
        state=ReplicaState(replica.state),
        version=replica.version,
        age_s=replica.age_s,
        node_id=replica.node_id,
        pid=replica.pid,
        address=replica.address,
        stop_reason=replica.stop_reason,
    )


def _death(death: control_pb2.ReplicaDeath) -> DeathOverview:
    return DeathOverview(
        replica_id=death.replica_id,
        age_s=death.age_s,
        reason=death.reason,
        version=death.version,
        node_id=death.node_id,
    )


def _controller(controller: control_pb2.ControllerStatus) -> ControllerOverview:
    return ControllerOverview(
        pid=controller.pid,
        node_id=controller.node_id,
        age_s=controller.age_s,
        restarts=controller.restarts,
        message=controller.message,
    )


def _autoscaling(status: control_pb2.AutoscalingStatus) -> AutoscalingStatus:
    return AutoscalingStatus(
        min_replicas=status.min_replicas,
        max_replicas=status.max_replicas,
        average_requests=status.average_requests,
        current_requests=status.current_requests,
        decision=status.decision,
        problem=status.problem,
    )
