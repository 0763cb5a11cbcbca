"""A health check period that is changed while it runs, in fake time."""

from tests.sim.fake_cluster import Faults
from tests.sim.fake_mesh import Mesh
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
