"""When replicas are checked: periods that are changed while they run, and how checks are spread, in fake time."""

import asyncio

from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster, Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running


async def test_a_shorter_health_check_period_holds_within_the_longer_one_before() -> None:
    """It needs no restart, and does not wait for the check that was due in an hour (items 150, 188)."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 1, health_check_period_s=3600.0)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    (sick,) = (actor.name for actor in mesh.cluster.serving("v1"))
    await mesh.deploy("v1", 1, health_check_period_s=1.0)
    mesh.cluster.faults = Faults(sick=1.0)
    await mesh.until(lambda: sick not in mesh.cluster.actors, within_s=30.0)
    mesh.cluster.faults = Faults()
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    assert "failed" in mesh.loop.status().applications[0].deployments[0].last_ended
    await mesh.crash()


class _Checked(FakeCluster):
    """Records when its actors are checked."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.checks: list[tuple[float, str]] = []

    async def _check_health(self, actor: Actor) -> None:
        self.checks.append((asyncio.get_running_loop().time(), actor.name))
        await super()._check_health(actor)


def test_checks_are_spread_alike_in_each_run_of_a_scenario() -> None:
    """A scenario that fails fails again: nothing in it depends on what ran before it in the same process."""

    async def checks(cluster: _Checked) -> list[tuple[float, str]]:
        mesh = Mesh(seed=1, cluster=cluster)
        await mesh.boot()
        await mesh.deploy("v1", 3)
        await mesh.until(lambda: is_running(mesh, "v1", 3))
        await asyncio.sleep(60.0)
        await mesh.crash()
        return cluster.checks

    first, second = (run_in_fake_time(checks(_Checked(seed=1))) for _ in range(2))
    assert len(first) > 15
    assert first == second
