"""mesh.controller.actors.actor_calls: how the end of an actor is noticed, and what it held given back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, ActorUnreachableError
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
            raise ActorDiedError("Ray has noticed")
        raise ActorUnreachableError("unavailable")

    async def refuses(self, address: str) -> bool:
        return bool(address) and now_s() >= self._refuses_after_s

    async def release(self, name: str) -> None:
        if self.releases_that_fail:
            self.releases_that_fail -= 1
            raise ActorCallError("no GCS")
        await super().release(name)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def care_of(cluster: Silent) -> ActorCalls:
    return ActorCalls(cluster, lambda: asyncio.sleep(0))


def seen(main: Coroutine[Any, Any, ActorDiedError]) -> tuple[ActorDiedError, float]:
    async def timed() -> tuple[ActorDiedError, float]:
        return await main, now_s()

    return run_in_fake_time(timed())


def test_a_port_that_refuses_tells_of_a_node_s_death_before_ray_does() -> None:
    """Ray needs up to half a minute to declare a node dead."""
    cluster = Silent(refuses_after_s=0.0, gone_after_s=30.0)
    gone, after_s = seen(care_of(cluster).death_reason("actor", lambda: ADDRESS))
    assert gone.is_node_lost
    assert after_s < 1.0


def test_an_actor_out_of_reach_whose_port_answers_is_not_dead() -> None:
    cluster = Silent(refuses_after_s=60.0, gone_after_s=30.0)
    gone, after_s = seen(care_of(cluster).death_reason("actor", lambda: ADDRESS))
    assert (str(gone), gone.is_node_lost) == ("Ray has noticed", False)
    assert after_s >= 30.0


def test_an_actor_that_closes_its_port_to_leave_is_not_taken_for_dead() -> None:
    cluster = Silent(refuses_after_s=0.0, gone_after_s=5.0)
    gone, _ = seen(care_of(cluster).death_reason("actor", lambda: ""))
    assert not gone.is_node_lost


def test_a_placement_group_is_given_back_however_often_it_takes() -> None:
    async def main() -> set[str]:
        cluster = Silent(refuses_after_s=0.0, gone_after_s=0.0)
        cluster.groups, cluster.releases_that_fail = {"actor"}, 5
        await cluster.placement_group_names()
        await care_of(cluster).release("actor")
        return cluster.groups

    assert run_in_fake_time(main()) == set()


def test_an_actor_is_killed_once_at_a_time() -> None:
    """The planner says it at every turn, and while Ray's GCS is away every kill takes long."""

    async def main() -> None:
        cluster = Unhurried()
        calls = care_of(cluster)
        async with asyncio.TaskGroup() as turns:
            for _ in range(50):
                turns.create_task(calls.kill("actor"))
                await asyncio.sleep(1.0)
        assert cluster.most == 1
        assert cluster.kills == 3  # each took 20 s, and the next turn said it again

    run_in_fake_time(main())


class Unhurried(Silent):
    def __init__(self) -> None:
        super().__init__(refuses_after_s=0.0, gone_after_s=0.0)
        self.kills = self.most = self._now = 0

    async def kill(self, name: str) -> None:
        self.kills += 1
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(19.5)
        self._now -= 1
        raise ActorCallError("no GCS")


def test_a_placement_group_that_is_not_removed_at_once_is_removed_at_the_second_attempt() -> None:
    async def main() -> tuple[set[str], float]:
        cluster = Silent(refuses_after_s=0.0, gone_after_s=0.0)
        cluster.groups, cluster.releases_that_fail = {"actor"}, 1
        await cluster.placement_group_names()
        await care_of(cluster).release("actor")
        return cluster.groups, now_s()

    groups, after_s = run_in_fake_time(main())
    assert groups == set()
    assert 1.0 <= after_s < 2.0


class Constructing(Silent):
    """An actor whose drain takes a while, or fails."""

    def __init__(self, drain_s: float, error: ActorCallError | None = None) -> None:
        super().__init__(refuses_after_s=0.0, gone_after_s=0.0)
        self.drain_s, self.error = drain_s, error
        self.said: list[str] = []

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        self.said.append(method)
        await asyncio.sleep(self.drain_s)
        if self.error is not None:
            raise self.error
        self.said.append("done")
        return None

    async def kill(self, name: str) -> None:
        self.said.append("kill")


def test_an_actor_that_is_given_up_while_it_starts_may_delete_what_it_has_before() -> None:
    """For a moment; a constructor that blocks its loop does not delay the kill for longer (item 76)."""

    def abandoned(cluster: Constructing) -> tuple[list[str], float]:
        async def main() -> tuple[list[str], float]:
            await care_of(cluster).abandon("actor")
            return cluster.said, now_s()

        return run_in_fake_time(main())

    assert abandoned(Constructing(0.5)) == (["drain", "done", "kill"], 0.5)
    assert abandoned(Constructing(60.0)) == (["drain", "kill"], 1.0)
    assert abandoned(Constructing(0.0, ActorDiedError("gone"))) == (["drain", "kill"], 0.0)


def test_an_actor_that_ends_while_it_drains_has_no_successor_of_its_name_killed() -> None:
    """The names of gateways are used again (item 209)."""
    cluster = Constructing(1.0, ActorUnreachableError("it exits"))
    run_in_fake_time(care_of(cluster).drain("actor", lambda: now_s() < 1.0))
    assert cluster.said == ["drain"]
    run_in_fake_time(care_of(cluster).drain("actor", lambda: False))
    assert cluster.said == ["drain"]
