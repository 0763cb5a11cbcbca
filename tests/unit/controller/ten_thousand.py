"""Ten thousand replicas: what is wanted, on which nodes, and the picture of those that are there."""

from collections.abc import Iterable
from dataclasses import replace

from mesh.controller.desired.desired_state import Desired, read_desired
from mesh.controller.plan.cluster_picture import Node, Replica
from mesh.status import ReplicaState
from mesh.v1 import control_pb2

SHAPES = [(1, 1, 10_000), (500, 4, 5)]
"""Applications, deployments of each, replicas of each of these: 10,000 in all."""
NODES = tuple(
    Node(node_id=f"n{number}", is_head=number == 0, total={"CPU": 8.0}, available={"CPU": 8.0})
    for number in range(1250)
)
FULL = tuple(replace(node, available={"CPU": 0.0}) for node in NODES)
NOW_S = 1000.0


def wanted(shape: tuple[int, int, int], version: str = "v1") -> Desired:
    return read_desired(wanted_state(shape, version))


def wanted_state(shape: tuple[int, int, int], version: str = "v1") -> control_pb2.DesiredState:
    applications, deployments, replicas = shape
    state = control_pb2.DesiredState()
    for number in range(applications):
        app = state.applications.add(name=f"app{number}", route_prefix=f"/app{number}", ingress="D0")
        for index in range(deployments):
            spec = app.deployments.add(name=f"D{index}", version=version, has_run=version == "v1")
            spec.is_proven = spec.has_run
            spec.options.num_replicas = replicas
            spec.options.max_ongoing_requests = 5
            spec.options.actor.num_cpus = 1
    return state


def replicas_of(desired: Desired, state: ReplicaState = ReplicaState.RUNNING) -> Iterable[Replica]:
    """All that are wanted, spread over the nodes."""
    targets = (target for target in desired.deployments.values() for _ in range(target.num_replicas))
    for number, target in enumerate(targets):
        yield Replica(
            replica_id=f"r{number:05}",
            deployment=target.key,
            version=target.version,
            config_version=target.config_version,
            state=state,
            created_at_s=NOW_S,
            is_placed=state != ReplicaState.STARTING,
            address="10.0.0.1:7000",
            bundles=target.request.bundles,
            bundle_nodes=(NODES[number % len(NODES)].node_id,),
            spec=target.spec,
        )
