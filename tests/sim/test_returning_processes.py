"""Processes that have lost their controller hear from the next one of what drains before it drains."""

import pytest

from mesh.routing.snapshot import DeploymentKey
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.sim.listener import Listener
from tests.sim.storm import RecordedCluster
from tests.unit.controller.builders import KEY

BEGUN, WANTED = 6, 2


async def watched_mesh() -> tuple[Mesh, RecordedCluster]:
    """One with replicas that serve, and processes that list them."""
    cluster = RecordedCluster(1)
    mesh = Mesh(1, cluster=cluster)
    cluster.mesh = mesh
    await mesh.boot()
    cluster.listeners = [Listener(mesh, number, [KEY]) for number in range(4)]
    await mesh.deploy("v1", BEGUN)
    await mesh.until(lambda: is_running(mesh, "v1", BEGUN))
    await mesh.until(lambda: all(len(each.known[KEY]) == BEGUN for each in cluster.listeners))
    return mesh, cluster


async def end(mesh: Mesh, cluster: RecordedCluster) -> None:
    for listener in cluster.listeners:
        listener.end()
    await mesh.crash()


@pytest.mark.parametrize("steps", range(1, 16))
async def test_a_restarted_controller_drains_what_its_callers_know_to_be_gone(steps: int) -> None:
    """It died at any step of a change that stops replicas, so its first turn finds some to stop."""
    mesh, cluster = await watched_mesh()
    mesh.life.dies_at_step = mesh.life.steps + steps
    await mesh.deploy("v1", WANTED)
    await mesh.until(lambda: is_running(mesh, "v1", WANTED))
    assert not cluster.complaints()
    assert all(len(each.known[DeploymentKey("app", "Model")]) == WANTED for each in cluster.listeners)
    await end(mesh, cluster)


async def test_processes_of_a_controller_that_lives_on_beside_the_next_one_hear_of_what_that_drains() -> None:
    """Ray took it for dead. It ends within a second, and the next one drains nothing before they are back."""
    mesh, cluster = await watched_mesh()
    before = mesh.publisher
    await mesh.take_over()
    assert all(each.follows is before for each in cluster.listeners)
    await mesh.deploy("v1", WANTED)
    await mesh.until(lambda: not mesh.ghosts, within_s=2.0)
    assert not any(actor.is_draining for actor in cluster.replicas())
    await mesh.until(lambda: is_running(mesh, "v1", WANTED))
    assert not cluster.complaints()
    assert all(each.follows is mesh.publisher and len(each.known[KEY]) == WANTED for each in cluster.listeners)
    await end(mesh, cluster)
