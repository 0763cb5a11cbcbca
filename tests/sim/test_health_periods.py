"""A health check period that is changed while it runs, in fake time.

A test runs the coroutine that follows it; what is asserted stands there.
"""

from tests.sim.fake_cluster import Faults
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running


def test_a_shorter_health_check_period_holds_within_the_longer_one_before() -> None:
    """It needs no restart, and does not wait for the check that was due in an hour (items 150, 188)."""
    run_in_fake_time(_shorten())


async def _shorten() -> None:
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
    await mesh.crash()
