"""A first version of which not all replicas come up, in fake time."""

import asyncio

import pytest

from mesh.client import rollout_wait
from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.status import ApplicationStatus
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running


class FewPlaces(FakeCluster):
    """A number of constructors succeed; the others raise that there is no licence left."""

    def __init__(self, places: int) -> None:
        super().__init__(seed=1)
        self.places = places
        self.attempts = 0
        self.taken = 0

    async def _construct(self, actor: Actor) -> None:
        self.attempts += 1
        if self.taken >= self.places:
            raise ActorCallError("ValueError: no licence left")
        self.taken += 1
        await super()._construct(actor)


async def test_a_first_version_that_has_served_is_tried_without_limit_and_says_why_it_is_not_complete() -> None:
    """One replica came up, so that the others may have failed for a passing reason (item 148)."""
    mesh = Mesh(1, cluster=(cluster := FewPlaces(1)))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await asyncio.sleep(3600.0)
    application = mesh.loop.status().applications[0]
    assert (application.status, len(cluster.serving())) == (ApplicationStatus.DEPLOYING, 1)
    assert "no licence left" in application.message
    assert 3600.0 / 25.0 < cluster.attempts < 3600.0, "with pauses"
    assert not rollout_wait._is_running(mesh.loop.status(), "app", lambda status: None)
    cluster.places = 3
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.crash()


async def test_a_first_version_that_has_never_served_is_given_up() -> None:
    mesh = Mesh(1, cluster=(cluster := FewPlaces(0)))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: mesh.app_status() == ApplicationStatus.DEPLOY_FAILED)
    await asyncio.sleep(30.0)  # those that were under way
    attempts = cluster.attempts
    await asyncio.sleep(3600.0)
    assert cluster.attempts == attempts
    with pytest.raises(RuntimeError, match="no licence left"):
        rollout_wait._is_running(mesh.loop.status(), "app", lambda status: None)
    await mesh.crash()
