"""Cordons and drains of the nodes of a simulated mesh, as operators ask for them, and how far they are."""

import functools
from collections import Counter

from mesh.controller.nodes.cordons import cordoned, uncordoned
from mesh.controller.report.node_statuses import node_status, replicas_on
from mesh.status import NodeStatus
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.sim.watched_cluster import WatchedCluster, app


async def started(seed: int, cpus: dict[str, float], num_replicas: int) -> tuple[Mesh, WatchedCluster]:
    cluster = WatchedCluster(seed, cpus)
    mesh = Mesh(seed, cluster=cluster)
    await mesh.boot()
    await mesh.run(lambda: app("v1", num_replicas))
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    return mesh, cluster


async def drain(mesh: Mesh, node_id: str) -> None:
    await set_cordon(mesh, node_id, is_draining=True)


async def cordon(mesh: Mesh, node_id: str) -> None:
    await set_cordon(mesh, node_id, is_draining=False)


async def set_cordon(mesh: Mesh, node_id: str, *, is_draining: bool) -> None:
    count = replicas_on(node_id, mesh.loop.picture())
    entry = control_pb2.Cordon(node_id=node_id, is_draining=is_draining, replicas=count)
    await mesh.ask(lambda: (functools.partial(cordoned, cordon=entry), ()))


async def uncordon(mesh: Mesh, node_id: str) -> None:
    await mesh.ask(lambda: (functools.partial(uncordoned, node_ids=(node_id,)), ()))


def status(mesh: Mesh, node_id: str) -> control_pb2.NodeStatus:
    found = node_status(node_id, mesh.loop.picture())
    assert found is not None
    return found


def is_drained(mesh: Mesh, *node_ids: str) -> bool:
    return all(status(mesh, each).status == NodeStatus.DRAINED for each in node_ids)


def nodes_of(cluster: WatchedCluster) -> Counter[str]:
    return Counter(actor.node_id for actor in cluster.replicas())
