"""mesh.controller.actors.node_list: one incomplete or late list changes nothing."""

import asyncio

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.controller.actors.node_list import NodeList
from mesh.controller.plan.cluster_picture import Node
from mesh.settings import settings
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_time import run_in_fake_time

TEN = {f"n{number}": 1.0 for number in range(10)}


class Lister(FakeCluster):
    """Its lists lack `missing`, take a while, or fail."""

    def __init__(self) -> None:
        super().__init__(seed=1, cpus=TEN)
        self.missing: set[str] = set()
        self.takes_s = 0.0
        self.is_away = False

    async def nodes(self) -> list[Node]:
        await asyncio.sleep(self.takes_s)
        if self.is_away:
            raise ActorCallError("GCS is away")
        return [node for node in await super().nodes() if node.node_id not in self.missing]


async def read(nodes: NodeList, times: int = 1) -> set[str]:
    """The nodes after that number of readings."""
    for _ in range(times):
        nodes.expire()
        await nodes.refresh(is_calm=False)
        await asyncio.sleep(1.0)
    return {node.node_id for node in nodes.nodes}


async def known(cluster: Lister) -> NodeList:
    nodes = NodeList(cluster, asyncio.get_running_loop().time)
    assert await read(nodes) == set(TEN)
    return nodes


def test_a_node_is_gone_when_two_readings_lack_it() -> None:
    async def main() -> None:
        nodes = await known(cluster := Lister())
        cluster.missing = {"n1"}
        assert await read(nodes) == set(TEN)
        assert [node.available for node in nodes.nodes if node.node_id == "n1"] == [{}], "nothing is placed on it"
        assert await read(nodes) == set(TEN) - {"n1"}
        cluster.missing = set()
        assert await read(nodes) == set(TEN)

    run_in_fake_time(main())


def test_a_node_that_comes_back_was_never_gone() -> None:
    async def main() -> None:
        nodes = await known(cluster := Lister())
        for missing in ({"n1"}, set(), {"n1"}, set()):
            cluster.missing = missing
            assert await read(nodes) == set(TEN)

    run_in_fake_time(main())


def test_more_than_a_third_is_believed_to_be_gone_after_a_while_and_said() -> None:
    async def main() -> None:
        nodes = await known(cluster := Lister())
        cluster.missing = {"n1", "n2", "n3", "n4"}
        wait_s = int(settings().controller.mass_loss_wait_s)
        assert await read(nodes, times=wait_s) == set(TEN)
        assert nodes.problem.startswith("4 of 10 nodes are missing")
        assert await read(nodes, times=2) == set(TEN) - cluster.missing
        assert nodes.problem == ""

    run_in_fake_time(main())


def test_a_list_that_fails_or_is_late_leaves_the_nodes_as_they_are() -> None:
    """A turn does not wait for it: deaths have to be published."""

    async def main() -> None:
        nodes = await known(cluster := Lister())
        cluster.is_away = True
        assert await read(nodes, times=3) == set(TEN)
        cluster.is_away, cluster.takes_s, cluster.missing = False, 5.0, {"n1"}
        loop = asyncio.get_running_loop()
        for _ in range(4):
            nodes.expire()
            began_at_s = loop.time()
            await nodes.refresh(is_calm=False)
            assert loop.time() - began_at_s <= settings().controller.turn_interval_s
        assert len(nodes.nodes) == 10
        assert await read(nodes, times=12) == set(TEN) - {"n1"}

    run_in_fake_time(main())


def test_a_node_is_long_gone_when_all_readings_of_an_hour_lack_it() -> None:
    """One that comes back starts again; before the first reading nothing is known."""

    async def main() -> None:
        memory_s = settings().controller.cordon_memory_s
        unread = NodeList(Lister(), asyncio.get_running_loop().time)
        assert unread.long_gone(["n1"]) == []
        await asyncio.sleep(memory_s)
        assert unread.long_gone(["n1"]) == []
        nodes = await known(cluster := Lister())
        assert nodes.long_gone(["n1", "other"]) == []
        await asyncio.sleep(memory_s - 10.0)
        cluster.missing = {"n1"}
        await read(nodes, times=2)
        assert nodes.long_gone(["n1", "other"]) == []
        await asyncio.sleep(20.0)
        assert nodes.long_gone(["n1", "other"]) == ["other"]
        cluster.missing = set()
        await read(nodes)
        assert nodes.long_gone(["n1"]) == []
        await asyncio.sleep(memory_s)
        assert nodes.long_gone(["n1"]) == []

    run_in_fake_time(main())
