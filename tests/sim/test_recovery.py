"""A restarted controller and replicas that still wait for a process, in fake time."""

import asyncio
import functools

import pytest

from mesh.cluster.keys import replica_name
from mesh.controller.plan.cluster_picture import RestartReason
from mesh.controller.store.desired_store import StateStore
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import KEY, application, with_application

SIZE = 100
AT_ONCE_S = 1.0


def app(version: str = "v1", cpus: float = 1.0, per_node_max: int = 0) -> control_pb2.ApplicationSpec:
    spec = application("app", version, SIZE)
    spec.deployments[0].options.actor.num_cpus = cpus
    spec.deployments[0].options.max_replicas_per_node = per_node_max
    return spec


async def full_mesh(spec: control_pb2.ApplicationSpec) -> Mesh:
    """One replica has room. The controller has crashed."""
    mesh = Mesh(seed=1, cpus={"n1": 1.0})
    await mesh.boot()
    await mesh.run(functools.partial(_copy, spec))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 1)
    await asyncio.sleep(5.0)
    await mesh.crash()
    return mesh


async def boot(mesh: Mesh) -> None:
    began_at_s = asyncio.get_running_loop().time()
    await mesh.boot()
    assert asyncio.get_running_loop().time() - began_at_s < AT_ONCE_S


async def test_replicas_that_wait_for_room_are_adopted_at_once_and_keep_their_place() -> None:
    mesh = await full_mesh(app())
    before = set(mesh.cluster.actors)
    await boot(mesh)
    await asyncio.sleep(20.0)
    assert set(mesh.cluster.actors) == before
    assert f"{SIZE - 1} of {SIZE} replicas wait for room" in deployment(mesh).message
    mesh.cluster.cpus["n2"] = SIZE
    await mesh.until(lambda: is_running(mesh, "v1", SIZE))
    assert {name for name in before if "REPLICA" in name} == {actor.name for actor in mesh.cluster.replicas()}
    assert not mesh.failed
    await mesh.crash()


async def test_waiting_replicas_of_another_version_are_ended_at_once() -> None:
    """They may ask for what the cluster never has, which the new version corrects."""
    mesh = await full_mesh(app())
    store = StateStore(mesh.kv)
    corrected = app("v2", cpus=0.0)
    store.put_code(corrected)
    store.save(with_application(mesh.stored(), corrected, 0.0))
    await boot(mesh)
    await mesh.until(lambda: is_running(mesh, "v2", SIZE))
    assert not mesh.failed
    await mesh.crash()


async def test_waiting_replicas_that_are_bound_to_a_node_are_started_again() -> None:
    """Its node is not known any more, and no node may get more than its number."""
    mesh = await full_mesh(app(per_node_max=SIZE))
    await boot(mesh)
    mesh.cluster.cpus["n2"] = SIZE
    await mesh.until(lambda: is_running(mesh, "v1", SIZE))
    assert not mesh.failed
    await mesh.crash()


async def test_an_out_of_memory_kill_without_a_controller_is_reported() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.run(functools.partial(_copy, application("app", "v1", 2)))
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    await mesh.crash()
    victim = mesh.cluster.replicas()[0]
    mesh.cluster.end(victim)
    of_an_older_version = replica_name(DeploymentKey("app", "Model"), "r98", "v0")
    mesh.cluster.starved = {victim.name: "no memory", of_an_older_version: "old", "MESH_GATEWAY::n1": "a gateway"}
    await mesh.boot()
    assert "no memory" in deployment(mesh).message
    assert "old" not in deployment(mesh).message
    assert mesh.loop.picture().observed.tallies[KEY].restarts == {RestartReason.DIED: 1}
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    assert not mesh.failed
    await mesh.crash()


async def test_an_out_of_memory_kill_of_a_version_that_has_never_run_is_a_failed_start() -> None:
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.run(functools.partial(_copy, application("app", "v1", 1)))
    await mesh.crash()
    mesh.cluster.starved = {replica_name(KEY, "r98", "v1"): "no memory"}
    await mesh.boot()
    assert mesh.loop.picture().observed.tallies[KEY].restarts == {RestartReason.START_FAILED: 1}
    await mesh.crash()


class Spoiled(FakeCluster):
    """The process of one replica answers nonsense: user code can do that."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.nonsense: bytes | None = None

    async def _describe(self, actor: Actor) -> bytes:
        if self.nonsense is not None and actor is self.replicas()[0]:
            return self.nonsense
        return await super()._describe(actor)


@pytest.mark.parametrize("nonsense", [b"\xff", b"", control_pb2.ReplicaReady(replica_id="r99").SerializeToString()])
async def test_a_replica_that_answers_nonsense_keeps_no_controller_from_its_work(nonsense: bytes) -> None:
    mesh = Mesh(1, cluster=(cluster := Spoiled()))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    spoiled, *good = cluster.replicas()
    await mesh.crash()
    cluster.nonsense = nonsense
    await boot(mesh)
    cluster.nonsense = None
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    assert spoiled.closed.is_set()
    assert set(good) < set(cluster.replicas())
    assert not mesh.failed
    await mesh.crash()


async def test_a_replica_that_answers_its_start_with_nonsense_has_failed() -> None:
    mesh = Mesh(1, cluster=(cluster := Spoiled()))
    await mesh.boot()
    cluster.nonsense = b""
    await mesh.deploy("v1", 1)
    await mesh.until(lambda: deployment(mesh).status == "DEPLOY_FAILED")
    assert deployment(mesh).message.startswith("its process says that it is replica ''")
    assert not mesh.failed
    await mesh.crash()


def deployment(mesh: Mesh) -> control_pb2.DeploymentStatus:
    return mesh.loop.status().applications[0].deployments[0]


def _copy(spec: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    copy = control_pb2.ApplicationSpec()
    copy.CopyFrom(spec)
    return copy


class RecordsReleases(FakeCluster):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.groups = {replica_name(DeploymentKey("app", "Model"), "v1", f"r{number}") for number in range(9)}
        self.released: list[str] = []

    async def release(self, name: str) -> None:
        self.released.append(name)
        await super().release(name)


async def test_placement_groups_that_are_left_over_are_removed_in_the_order_of_their_names() -> None:
    """So that a run with the same seed does the same."""
    cluster = RecordsReleases()
    left_over = sorted(cluster.groups)
    mesh = Mesh(seed=1, cluster=cluster)
    await mesh.boot()
    assert cluster.released == left_over
    await mesh.crash()
