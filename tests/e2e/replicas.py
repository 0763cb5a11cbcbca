"""An application's replicas beyond the public API: ids, process ids and addresses."""

from mesh.client import mesh_lifecycle
from mesh.v1 import control_pb2


def replicas(app: str, deployment: str) -> list[control_pb2.ReplicaStatus]:
    """All that there are, in any state."""
    return [
        replica
        for application in mesh_lifecycle.require().status().applications
        if application.name == app
        for each in application.deployments
        if each.name == deployment
        for replica in each.replicas
    ]


def running(app: str, deployment: str) -> dict[str, control_pb2.ReplicaStatus]:
    """By replica id."""
    return {each.replica_id: each for each in replicas(app, deployment) if each.state == "RUNNING"}
