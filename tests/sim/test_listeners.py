"""Processes that follow a deployment on Sync streams, in fake time: what they hear, and what waits for them."""

import asyncio

from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running, listed
from tests.sim.listener import Listener, Manner
from tests.sim.storm import RecordedCluster
from tests.unit.controller.builders import KEY


async def test_replicas_drain_when_all_that_read_have_heard_of_it() -> None:
    """Those that read nothing, or have vanished, hold nothing up (item 153)."""
    cluster = RecordedCluster(seed=1)
    mesh = cluster.mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 10)
    await mesh.until(lambda: is_running(mesh, "v1", 10))
    listeners = cluster.listeners = [Listener(mesh, number, [KEY]) for number in range(6)]
    await mesh.until(lambda: all(each.known[KEY] == set(listed(mesh)) for each in listeners))
    listeners[4].manner, listeners[5].manner = Manner.STALLED, Manner.VANISHED
    for version in ("v2", "v3"):
        await mesh.deploy(version, 10)
        await mesh.until(lambda version=version: is_running(mesh, version, 10))
        await mesh.crash()
        await mesh.boot()
    assert sum(" drain " in line for line in cluster.history) >= 20
    assert cluster.complaints() == ""
    listeners[4].manner = Manner.PROMPT
    await asyncio.sleep(5.0)
    assert [each.known[KEY] == set(listed(mesh)) for each in listeners] == [True] * 5 + [False]
    for listener in listeners:
        listener.end()
    await mesh.crash()
