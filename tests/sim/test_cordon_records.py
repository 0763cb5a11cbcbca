"""What is stored of cordons and drains holds over restarts of the controller, in fake time."""

import asyncio

import pytest

from mesh.controller.plan.cluster_picture import Node
from tests.sim.cordons import cordon, drain, is_drained, nodes_of, started, uncordon
from tests.sim.goals import is_running
from tests.sim.watched_cluster import app

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_cordoned_node_that_the_first_list_of_a_controller_lacks_gets_no_replica(seed: int) -> None:
    """What Ray places by itself avoids it too."""
    mesh, cluster = await started(seed, {"head": 1.0, "n1": 9.0}, 1)
    await cordon(mesh, "n1")
    await mesh.crash()
    list_nodes = cluster.nodes

    async def without_n1() -> list[Node]:
        return [node for node in await list_nodes() if node.node_id != "n1"]

    cluster.nodes = without_n1  # type: ignore[method-assign]
    await mesh.boot()
    before = nodes_of(cluster)["n1"]
    await mesh.run(lambda: app("v1", 4))
    await asyncio.sleep(20.0)
    cluster.nodes = list_nodes  # type: ignore[method-assign]
    await asyncio.sleep(20.0)
    assert nodes_of(cluster)["n1"] == before
    await uncordon(mesh, "n1")
    await mesh.until(lambda: is_running(mesh, "v1", 4))
    await mesh.crash()


async def test_a_drain_says_once_when_it_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Also over a restart of the controller; `mesh events` shows it."""
    caplog.set_level("INFO")
    mesh, _ = await started(1, {"head": 9.0, "n1": 9.0}, 4)
    for _ in range(2):
        await drain(mesh, "n1")
        await mesh.until(lambda: is_drained(mesh, "n1"))
        await mesh.until(lambda: mesh.stored().cordons[0].is_drained)
        await mesh.crash()
        await mesh.boot()
        await asyncio.sleep(20.0)
        await uncordon(mesh, "n1")
    await mesh.crash()
    ends = [each for each in caplog.messages if "is drained: it can be switched off" in each]
    assert [each.split()[1] for each in ends] == ["n1", "n1"], "one for each of two drains"
