"""What `mesh.status()` says of local applications."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.local.local_application import LocalApplication
from mesh.local.local_replica import LocalReplica
from mesh.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    MeshStatus,
    ReplicaOverview,
    ReplicaState,
)


def status_of(applications: Iterable[LocalApplication]) -> MeshStatus:
    """The status of local applications that run or start. It lists no controller and no gateways."""
    return MeshStatus(applications={each.name: _application(each) for each in applications})


def _application(application: LocalApplication) -> ApplicationStatusOverview:
    replicas = {name: application.replica(name) for name in application.deployments}
    ingress = next(each for each in application.spec.deployments if each.name == application.spec.ingress)
    is_running = all(each is not None and each.is_serving for each in replicas.values())
    return ApplicationStatusOverview(
        status=ApplicationStatus.RUNNING if is_running else ApplicationStatus.DEPLOYING,
        last_deployed_time_s=application.deployed_at_s,
        deployments={name: _deployment(each) for name, each in replicas.items()},
        docs_path=ingress.docs_path or None,
    )


def _deployment(replica: LocalReplica | None) -> DeploymentStatusOverview:
    is_serving = replica is not None and replica.is_serving
    found = {replica.replica_id: _replica(replica)} if replica is not None else {}
    return DeploymentStatusOverview(
        status=DeploymentStatus.HEALTHY if is_serving else DeploymentStatus.UPDATING,
        status_trigger=DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED
        if is_serving
        else DeploymentStatusTrigger.CONFIG_UPDATE_STARTED,
        replica_states={each.state: 1 for each in found.values()},
        target_replicas=1,
        busy=float(replica.ongoing) if replica is not None else 0.0,
        places=replica.spec.options.max_ongoing_requests if replica is not None else 0,
        replicas=found,
    )


def _replica(replica: LocalReplica) -> ReplicaOverview:
    return ReplicaOverview(
        state=ReplicaState.RUNNING if replica.is_serving else ReplicaState.STARTING, version=replica.spec.version
    )
