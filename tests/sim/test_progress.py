"""User code that hangs stops the rollout where its deployment has a progress deadline, in fake time."""

import asyncio

from mesh.status import ApplicationStatus
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running, listed

DEADLINE_S = 60.0
GOOD, HANGS = '"good"', '"hangs"'


class Hangs(FakeCluster):
    """The constructor of v2 does not return, nor does reconfigure() with one configuration, until it is released."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.release = asyncio.Event()
        self.constructed = 0
        self.reached: set[str] = set()

    async def _construct(self, actor: Actor) -> None:
        if actor.spec.spec.version == "v2":
            self.constructed += 1
            await self.release.wait()
        await super()._construct(actor)

    async def _reconfigure(self, actor: Actor, spec: bytes) -> None:
        if HANGS.encode() in spec:
            self.reached.add(actor.name)
            await self.release.wait()
        await super()._reconfigure(actor, spec)


async def test_a_constructor_that_hangs_stops_the_rollout_and_leaves_the_version_before() -> None:
    """Its replica is ended, and all others serve on (items 148, 190)."""
    mesh, cluster = await _serving(num_replicas=4)
    olds = set(cluster.serving("v1"))
    await mesh.deploy("v2", 4, progress_deadline_s=DEADLINE_S)
    await asyncio.sleep(DEADLINE_S - 5)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED, within_s=15)
    message = mesh.loop.status().applications[0].message
    assert "its constructor has not returned within progress_deadline_s=60" in message
    assert "is not tried again" in message
    await asyncio.sleep(10 * DEADLINE_S)
    assert set(cluster.replicas()) == olds, "the replica that hung is ended, and no other one is started"
    assert (cluster.constructed, len(listed(mesh))) == (1, 4)
    await mesh.deploy("v3", 4)
    await mesh.until(lambda: is_running(mesh, "v3", 4))
    await mesh.crash()


async def test_a_first_version_that_hangs_is_given_up() -> None:
    mesh = Mesh(1, cluster=(cluster := Hangs()))
    await mesh.boot()
    await mesh.deploy("v2", 3, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await mesh.until(lambda: not cluster.replicas())
    constructed = cluster.constructed
    await asyncio.sleep(10 * DEADLINE_S)
    assert (cluster.constructed, cluster.replicas()) == (constructed, []), "it is not tried again"
    await mesh.crash()


async def test_without_a_deadline_a_constructor_takes_as_long_as_it_needs() -> None:
    mesh, cluster = await _serving(num_replicas=1)
    await mesh.deploy("v2", 1)
    await asyncio.sleep(2 * 3600.0)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    cluster.release.set()
    await mesh.until(lambda: is_running(mesh, "v2", 1))
    await mesh.crash()


async def test_a_deadline_that_is_deployed_later_holds_for_a_constructor_that_runs() -> None:
    """Also under the next controller, which knows the age of the process."""
    mesh, cluster = await _serving(num_replicas=1)
    await mesh.deploy("v2", 1)
    await asyncio.sleep(20.0)
    await mesh.crash()
    await mesh.boot()
    await mesh.deploy("v2", 1, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    assert cluster.constructed == 1
    await mesh.crash()


async def test_a_version_that_ran_is_started_again_where_one_of_its_replicas_hangs() -> None:
    mesh = Mesh(1, cluster=(cluster := Hangs()))
    await mesh.boot()
    cluster.release.set()
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    cluster.release.clear()
    cluster.end(cluster.replicas()[0])
    await mesh.until(lambda: cluster.constructed == 4)
    cluster.release.set()
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    assert len(listed(mesh)) == 2
    await mesh.crash()


async def test_a_reconfigure_that_hangs_stops_the_rollout() -> None:
    """No other replica gets the configuration; when it returns after all, the replica has it (item 187)."""
    mesh, cluster = await _serving(num_replicas=4)
    await mesh.deploy("v1", 4, user_config_json=HANGS, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    message = mesh.loop.status().applications[0].message
    assert "its reconfigure() has not returned within progress_deadline_s=60" in message
    assert "no other replica gets it" in message
    await asyncio.sleep(10 * DEADLINE_S)
    assert (len(cluster.reached), len(listed(mesh))) == (1, 4)
    cluster.release.set()
    await asyncio.sleep(5.0)
    assert "1 replica has it" in mesh.loop.status().applications[0].message
    await mesh.deploy("v1", 4, user_config_json=HANGS, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.crash()


async def test_the_deadline_does_not_run_while_a_rollout_is_paused() -> None:
    """It begins again when the rollout goes on."""
    mesh, cluster = await _serving(num_replicas=2)
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: cluster.constructed == 1)
    await mesh.pause(is_paused=True)
    await asyncio.sleep(5 * DEADLINE_S)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(2 * DEADLINE_S)
    await mesh.pause(is_paused=False)
    await asyncio.sleep(DEADLINE_S / 2)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    cluster.release.set()
    await mesh.until(lambda: is_running(mesh, "v2", 2))
    await mesh.crash()


async def test_a_pause_counts_also_where_the_controller_dies_after_it() -> None:
    """The next one does not know how long the constructor had time before: its deadline begins again."""
    mesh, cluster = await _serving(num_replicas=2)
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: cluster.constructed == 1)
    await mesh.pause(is_paused=True)
    await asyncio.sleep(5 * DEADLINE_S)
    await mesh.pause(is_paused=False)
    await asyncio.sleep(DEADLINE_S / 4)
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(DEADLINE_S / 2)
    assert mesh.app_status() == ApplicationStatus.DEPLOYING
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED, within_s=DEADLINE_S + 15)
    assert len(cluster.serving("v1")) == 2
    await mesh.crash()


async def test_the_deadline_runs_again_after_a_pause() -> None:
    mesh, cluster = await _serving(num_replicas=2)
    await mesh.deploy("v2", 2, progress_deadline_s=DEADLINE_S)
    await mesh.until(lambda: cluster.constructed == 1)
    await mesh.pause(is_paused=True)
    await asyncio.sleep(5 * DEADLINE_S)
    await mesh.pause(is_paused=False)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED, within_s=DEADLINE_S + 15)
    assert len(cluster.serving("v1")) == 2
    await mesh.crash()


async def _serving(num_replicas: int) -> tuple[Mesh, Hangs]:
    mesh = Mesh(1, cluster=(cluster := Hangs()))
    await mesh.boot()
    await mesh.deploy("v1", num_replicas, user_config_json=GOOD)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    return mesh, cluster
