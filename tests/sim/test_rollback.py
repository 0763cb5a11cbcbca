"""A rollback goes back to the version that served before, in fake time, without a gap.

A test runs the coroutine that follows it; what is asserted stands there.
"""

import functools

from mesh.controller.desired.desired_change import rolled_back
from mesh.status import ApplicationStatus
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.sim.goals import is_running
from tests.sim.test_late_crashes import fewest


async def roll_back(mesh: Mesh) -> None:
    await mesh._ask(lambda: (functools.partial(rolled_back, name="app", unix_time_s=0.0), ()))


def test_a_rollback_of_a_version_that_served_replaces_it_without_a_gap() -> None:
    """Also after a restart of the controller; a second rollback goes forward again (items 189, 190)."""
    run_in_fake_time(_there_and_back())


async def _there_and_back() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    for version in ("v1", "v2"):
        await mesh.deploy(version, 3)
        await mesh.until(lambda version=version: is_running(mesh, version, 3))
    await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.crash()
    await mesh.boot()
    for version in ("v1", "v2"):
        await roll_back(mesh)
        assert await fewest(lambda: len(mesh.cluster.serving()), for_s=20.0) >= 3
        await mesh.until(lambda version=version: is_running(mesh, version, 3))
        await mesh.until(lambda: not mesh.stored().predecessors)
    await mesh.crash()


def test_a_rollback_ends_a_rollout_that_failed() -> None:
    """The replicas that have served all the time stay."""
    run_in_fake_time(_end_failure())


async def _end_failure() -> None:
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"v2"}
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    olds = set(mesh.cluster.serving("v1"))
    await mesh.deploy("v2", 3)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await roll_back(mesh)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert set(mesh.cluster.serving("v1")) == olds
    await mesh.crash()
