"""Builds the records that tests of the controller are about."""

import itertools
from collections.abc import Mapping
from typing import Any

from mesh.controller.desired.changes.desired_change import with_applications
from mesh.controller.desired.desired_state import DeploymentTarget, Desired, read_desired
from mesh.controller.plan.cluster_picture import Gateway, GatewaySlot, Node, Observed, Replica
from mesh.controller.report.deployment_status import Verdict
from mesh.controller.report.mesh_picture import MeshPicture
from mesh.routing.snapshot import DeploymentKey
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2

KEY = DeploymentKey("app", "Model")
NODE = Node(node_id="n1", is_head=True)
_numbers = itertools.count()


def target(num_replicas: int = 2, version: str = "v2", config: str = "c1") -> DeploymentTarget:
    return DeploymentTarget(KEY, version, num_replicas, config, constructor_failures_max=min(20, 3 * num_replicas))


def desired(*targets: DeploymentTarget, is_shutting_down: bool = False, grpc_port: int | None = None) -> Desired:
    is_disabled = grpc_port is None
    location = control_pb2.GATEWAY_LOCATION_DISABLED if is_disabled else control_pb2.GATEWAY_LOCATION_EVERY_NODE
    return Desired(
        deployments={each.key: each for each in targets},
        gateways=control_pb2.GatewayOptions(location=location, grpc_port=grpc_port),
        is_shutting_down=is_shutting_down,
    )


def replica(
    state: ReplicaState = ReplicaState.RUNNING, version: str = "v2", *, created_at_s: float = 0.0, unhealthy: str = ""
) -> Replica:
    return Replica(
        replica_id=f"r{next(_numbers)}",
        deployment=KEY,
        version=version,
        config_version="c1",
        state=state,
        created_at_s=created_at_s,
        is_placed=True,
        unhealthy=unhealthy,
        address="10.0.0.1:7000",
        bundles=((("CPU", 1.0),),),
        bundle_nodes=("n1",),
    )


def gateway(
    state: GatewayStatus = GatewayStatus.HEALTHY,
    node_id: str = "n1",
    unhealthy: str = "",
    index: int = 0,
    revision: int = 0,
) -> Gateway:
    gateway_id = f"g-{node_id}" + (f"-{index}" if index else "") + (f"-r{revision}" if revision else "")
    return Gateway(gateway_id=gateway_id, slot=GatewaySlot(node_id, index, revision), state=state, unhealthy=unhealthy)


def observed(*replicas: Replica, gateways: tuple[Gateway, ...] = ()) -> Observed:
    return Observed(replicas=replicas, gateways=gateways, nodes=(NODE,))


def picture(
    desired: Desired, observed: Observed, verdicts: Mapping[DeploymentKey, Verdict], **fields: Any
) -> MeshPicture:
    return MeshPicture(desired=desired, observed=observed, verdicts=verdicts, **{"now_s": 0.0, **fields})


def application(
    name: str = "app",
    version: str = "v1",
    num_replicas: int = 2,
    autoscaling: control_pb2.AutoscalingOptions | None = None,
) -> control_pb2.ApplicationSpec:
    """An application with one deployment, Model."""
    spec = control_pb2.DeploymentSpec(name="Model", version=version, code=b"code of " + version.encode())
    spec.options.num_replicas = num_replicas
    spec.options.max_ongoing_requests = 5
    spec.options.graceful_shutdown_timeout_s = 20.0
    if autoscaling is not None:
        spec.options.autoscaling.CopyFrom(autoscaling)
    return control_pb2.ApplicationSpec(name=name, route_prefix=f"/{name}", ingress="Model", deployments=[spec])


def desired_of(*applications: control_pb2.ApplicationSpec) -> Desired:
    return read_desired(control_pb2.DesiredState(applications=applications))


def with_application(
    state: control_pb2.DesiredState, application: control_pb2.ApplicationSpec, unix_time_s: float
) -> control_pb2.DesiredState:
    """The state with `application` in the place of the one of that name."""
    return with_applications(state, [application], unix_time_s)
