"""mesh.controller.care: how the end of an actor is noticed, and what it held given back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mesh.controller.care import ActorCare
from mesh.controller.runtime import ActorCallFailed, ActorGone, ActorOutOfReach
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_time import run_in_fake_time

ADDRESS = "10.0.0.1:7000"


class Silent(FakeCluster):
    """Actors out of reach, until Ray says that they have gone; by then or before, their ports may refuse."""

    def __init__(self, *, refuses_after_s: float, gone_after_s: float) -> None:
        super().__init__(seed=1)
        self._refuses_after_s = refuses_after_s
        self._gone_after_s = gone_after_s
        self.releases_that_fail = 0

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        await asyncio.sleep(0.1)
        if now_s() >= self._gone_after_s:
            raise ActorGone("Ray has noticed")
        raise ActorOutOfReach("unavailable")

    async def refuses(self, address: str) -> bool:
        return bool(address) and now_s() >= self._refuses_after_s

    async def release(self, name: str) -> None:
        if self.releases_that_fail:
            self.releases_that_fail -= 1
            raise ActorCallFailed("no GCS")
        await super().release(name)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def care_of(cluster: Silent) -> ActorCare:
    return ActorCare(cluster, lambda: asyncio.sleep(0))


def seen(main: Coroutine[Any, Any, ActorGone]) -> tuple[ActorGone, float]:
    async def timed() -> tuple[ActorGone, float]:
        return await main, now_s()

    return run_in_fake_time(timed())


def test_a_port_that_refuses_tells_of_a_node_s_death_before_ray_does() -> None:
    """Issue 3, 7: Ray takes up to half a minute."""
    cluster = Silent(refuses_after_s=0.0, gone_after_s=30.0)
    gone, after_s = seen(care_of(cluster).last_words("actor", lambda: ADDRESS))
    assert gone.is_node_lost
    assert after_s < 1.0


def test_an_actor_out_of_reach_whose_port_answers_is_not_dead() -> None:
    cluster = Silent(refuses_after_s=60.0, gone_after_s=30.0)
    gone, after_s = seen(care_of(cluster).last_words("actor", lambda: ADDRESS))
    assert (str(gone), gone.is_node_lost) == ("Ray has noticed", False)
    assert after_s >= 30.0


def test_an_actor_that_closes_its_port_to_leave_is_not_taken_for_dead() -> None:
    cluster = Silent(refuses_after_s=0.0, gone_after_s=5.0)
    gone, _ = seen(care_of(cluster).last_words("actor", lambda: ""))
    assert not gone.is_node_lost


def test_a_placement_group_is_given_back_however_often_it_takes() -> None:
    async def main() -> set[str]:
        cluster = Silent(refuses_after_s=0.0, gone_after_s=0.0)
        cluster.groups, cluster.releases_that_fail = {"actor"}, 5
        await cluster.placement_group_names()
        await care_of(cluster).release("actor")
        return cluster.groups

    assert run_in_fake_time(main()) == set()
