"""The progress deadline of a rollout that is paused, in fake time."""

import asyncio

from mesh.status import ApplicationStatus
from tests.sim.goals import is_running
from tests.sim.test_progress import DEADLINE_S, _serving
from tests.sim.test_rollout_policy import pause


async def test_the_deadline_does_not_run_while_a_rollout_is_paused() -> None:
    """It begins again when the rollout goes on."""
    mesh, cluster = await _serving(num_replicas=2)
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: cluster.constructed == 1)
    await pause(mesh, is_paused=True)
    await asyncio.sleep(5 * DEADLINE_S)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(2 * DEADLINE_S)
    await pause(mesh, is_paused=False)
    await asyncio.sleep(DEADLINE_S / 2)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    cluster.release.set()
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    await mesh.crash()


async def test_the_deadline_runs_again_after_a_pause() -> None:
    mesh, cluster = await _serving(num_replicas=2)
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: cluster.constructed == 1)
    await pause(mesh, is_paused=True)
    await asyncio.sleep(5 * DEADLINE_S)
    await pause(mesh, is_paused=False)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED, within_s=DEADLINE_S + 15)
    assert len(cluster.serving("v1")) == 2
    await mesh.crash()
