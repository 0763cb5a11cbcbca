"""What simulated meshes are expected to come to."""

import asyncio
from collections import Counter
from collections.abc import Callable

from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus
from tests.sim.fake_mesh import Mesh
from tests.unit.controller.builders import KEY


def is_running(mesh: Mesh, version: str, num_replicas: int) -> bool:
    """Exactly the wanted replicas are there, and the controller says so."""
    replicas = mesh.cluster.replicas()
    return (
        len(replicas) == num_replicas == len(mesh.cluster.serving(version))
        and mesh.app_status() == ApplicationStatus.RUNNING
        and not mesh.loop.status().applications[0].deployments[0].message
    )


def listed(mesh: Mesh, key: DeploymentKey = KEY) -> list[str]:
    """The replicas of the deployment that callers know."""
    changes = mesh.publisher._snapshots.get(key)
    return [each.replica_id for each in changes.newest.replicas] if changes is not None else []


def counts(mesh: Mesh) -> dict[str, int]:
    """How many replicas serve of each version."""
    return dict(Counter(actor.spec.spec.version for actor in mesh.cluster.serving()))


async def fewest(count: Callable[[], int], for_s: float) -> int:
    """The smallest count in that time."""
    least = count()
    for _ in range(int(for_s / 0.1)):
        await asyncio.sleep(0.1)
        least = min(least, count())
    return least
