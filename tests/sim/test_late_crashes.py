"""A version that dies seconds after it came up replaces nothing, in fake time."""

import asyncio

import pytest

from mesh.status import ApplicationStatus
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import fewest, is_running, listed


@pytest.mark.parametrize("after_s", [0.5, 5.0, 9.0])
@pytest.mark.parametrize("num_replicas", [1, 4, 10, 20])
async def test_a_version_that_dies_soon_after_it_came_up_replaces_nothing(num_replicas: int, after_s: float) -> None:
    """The old version keeps its number, and the rollout stops after a few failures (items 189, 190)."""
    mesh = Mesh(seed=1)
    cluster = mesh.cluster
    cluster.crashing_versions = {"v2": after_s}
    await mesh.boot()
    await mesh.deploy("v1", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    olds = set(cluster.serving("v1"))
    await mesh.deploy("v2", num_replicas)
    assert await fewest(lambda: len(cluster.serving("v1")), for_s=300.0) == num_replicas
    assert set(cluster.replicas()) == olds
    assert len(listed(mesh)) == num_replicas
    assert mesh.app_status() == ApplicationStatus.DEPLOY_FAILED
    (deployment,) = mesh.loop.status().applications[0].deployments
    surge = max(1, num_replicas // 5)
    assert deployment.restarts <= 2 * surge + 2
    assert "came up and failed" in deployment.message
    await mesh.crash()


async def test_a_good_version_replaces_the_old_one_when_it_has_served_for_min_ready_s() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    for version, min_ready_s in (("v2", 0.0), ("v3", 60.0)):
        await mesh.deploy(version, 1, min_ready_s=min_ready_s)
        await mesh.until(lambda version=version: len(mesh.cluster.serving(version)) == 1)
        began_at_s = asyncio.get_running_loop().time()
        await mesh.until(lambda version=version: is_running(mesh, version, 1))
        assert min_ready_s <= asyncio.get_running_loop().time() - began_at_s < min_ready_s + 5.0
    await mesh.crash()
