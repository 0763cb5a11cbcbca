"""A node is drained while a rollout stands still: its replicas move, whichever version they are of."""

import pytest

from mesh.status import DeploymentStatus
from mesh.v1 import control_pb2
from tests.sim.cordons import drain, is_drained, started, uncordon
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts, is_running
from tests.sim.watched_cluster import WatchedCluster, app

CPUS = {"n1": 1000.0, "n2": 1000.0, "n3": 1000.0}
REPLICAS = 4


async def paused(seed: int, surge_percent: float) -> tuple[Mesh, WatchedCluster]:
    """In the middle of its rollout: both versions serve."""
    mesh, cluster = await started(seed, CPUS, REPLICAS)

    def update() -> control_pb2.ApplicationSpec:
        asked = app("v2", REPLICAS)
        asked.deployments[0].options.max_surge_percent = surge_percent
        asked.deployments[0].options.max_unavailable_percent = 0.0 if surge_percent else 25.0
        return asked

    await mesh.run(update)
    await mesh.until(lambda: len(counts(mesh)) == 2)
    await mesh.pause(is_paused=True)
    return mesh, cluster


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("surge_percent", [20.0, 0.0])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_paused_rollout_does_not_keep_a_node_from_being_drained(
    seed: int, surge_percent: float, version: str, restarts: bool
) -> None:
    """Also where the controller dies meanwhile. Nothing else moves, and afterwards the rollout goes on."""
    mesh, cluster = await paused(seed, surge_percent)
    node_id = next(actor.node_id for actor in cluster.serving(version) if actor.node_id != cluster.head)
    stay = {actor.name for actor in cluster.serving() if actor.node_id != node_id}
    await drain(mesh, node_id)
    if restarts:
        await mesh.crash()
        await mesh.boot()
    await mesh.until(lambda: is_drained(mesh, node_id))
    assert cluster.fewest >= (REPLICAS if surge_percent else REPLICAS - 1)
    assert stay <= {actor.name for actor in cluster.serving()}
    assert mesh.loop.status().applications[0].deployments[0].status == DeploymentStatus.UPDATING
    await uncordon(mesh, node_id)
    await mesh.pause(is_paused=False)
    await mesh.until(lambda: is_running(mesh, "v2", REPLICAS))
    await mesh.crash()
