"""An answer that is late, lost or incomplete is not a failure, in fake time: nothing healthy is ended for it."""

import asyncio
from typing import cast

import pytest

from mesh.cluster.keys import replica_name
from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.controller.plan.cluster_picture import Node
from mesh.controller.store.desired_store import StateStore
from mesh.options.deployments.option_effects import config_version
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor, Faults
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running, listed
from tests.unit.controller.builders import KEY, application, with_application

ONE_CPU = control_pb2.ActorOptions(num_cpus=1)


class Busy(FakeCluster):
    """Some replicas do not answer for a while: user code holds the interpreter lock of their processes."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.busy: dict[str, asyncio.Event] = {}
        """By actor name, until when."""

    async def _describe(self, actor: Actor) -> bytes:
        if actor.name in self.busy:
            await self.busy[actor.name].wait()
        return await super()._describe(actor)


def states(mesh: Mesh) -> list[str]:
    (deployment,) = mesh.loop.status().applications[0].deployments
    return sorted(replica.state for replica in deployment.replicas)


@pytest.mark.parametrize("version", ["v1", "v2"], ids=["of the wanted version", "of the version before"])
async def test_a_restarted_controller_waits_for_a_replica_that_is_too_busy_to_answer(version: str) -> None:
    mesh = Mesh(1, cluster=(cluster := Busy()))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    await mesh.deploy(version, 3, min_ready_s=60.0)
    before = set(cluster.serving("v1"))
    busy = min(before, key=lambda actor: actor.name)
    free = cluster.busy[busy.name] = asyncio.Event()
    await mesh.crash()
    await mesh.boot()
    assert "RECOVERING" in states(mesh)
    await asyncio.sleep(30.0)
    assert set(cluster.serving("v1")) == before
    free.set()
    await mesh.until(lambda: is_running(mesh, version, 3), within_s=600.0)
    if version == "v1":
        assert set(cluster.serving()) == before
        assert len(listed(mesh)) == 3
    await mesh.crash()


async def test_a_replica_that_never_answers_a_restarted_controller_is_replaced_in_the_end() -> None:
    """After as much time as three health checks have."""
    mesh = Mesh(1, cluster=(cluster := Busy()))
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    hung = cluster.serving()[0]
    cluster.busy[hung.name] = asyncio.Event()
    await mesh.crash()
    await mesh.boot()
    await asyncio.sleep(80.0)
    assert not hung.closed.is_set()
    await mesh.until(lambda: is_running(mesh, "v1", 3) and hung.closed.is_set())
    await mesh.crash()


class Slow:
    """Many healthy replicas, of which a certain number can be found and asked per second."""

    def __init__(self, count: int, per_second: float, config_version: str) -> None:
        self._config_version = config_version
        self._ids = {replica_name(KEY, f"r{number}", "v1"): f"r{number}" for number in range(count)}
        self._per_second = per_second
        self._turn = asyncio.Lock()
        self.others: list[tuple[object, ...]] = []
        """Everything else that was done: starts, drains, kills."""
        self.faults = Faults()

    def happens(self, chance: float) -> bool:
        return False

    async def actor_names(self) -> list[str]:
        return list(self._ids)

    async def pending_actor_names(self) -> list[str]:
        return []

    async def placement_group_names(self) -> list[str]:
        return []

    async def memory_deaths(self, within_s: float) -> dict[str, str]:
        return {}

    async def call(self, name: str, method: str, *arguments: bytes) -> bytes | None:
        if method == "check_health":
            return None
        if method == "wait_closed":
            await asyncio.Event().wait()
        if method != "describe":
            self.others.append((method, name))
        async with self._turn:
            await asyncio.sleep(1 / self._per_second)
        ready = control_pb2.ReplicaReady(
            replica_id=self._ids[name],
            deployment={"app": KEY.app, "name": KEY.name},
            version="v1",
            config_version=self._config_version,
            address="h:1",
        )
        return ready.SerializeToString()

    async def kill(self, name: str) -> None:
        self.others.append(("kill", name))

    async def spawn_replica(self, name: str, spec: object, assignment: object) -> None:
        self.others.append(("spawn", name))

    async def nodes(self, asker: object = None) -> list[Node]:
        return [Node(node_id="n1", is_head=True)]

    async def release(self, name: str) -> None: ...

    async def refuses(self, address: str) -> bool:
        return False


@pytest.mark.parametrize(("count", "per_second"), [(10_000, 500.0), (250, 2.0)])
async def test_a_recovery_of_many_replicas_kills_none(count: int, per_second: float) -> None:
    """500 answers a second are enough for all in time; at two, most are adopted by name, and the last one is asked
    when the first would have to be given up."""
    app = application("app", "v1", count)
    app.deployments[0].options.health_check_period_s = 3600.0
    cluster = Slow(count, per_second, config_version(app.deployments[0].options))
    mesh = Mesh(1, cluster=cast(FakeCluster, cluster))
    store = StateStore(mesh.kv)
    store.put_code(app)
    state = with_application(control_pb2.DesiredState(version=1), app, 0.0)
    state.gateways.location = control_pb2.GATEWAY_LOCATION_DISABLED
    store.save(state)
    await mesh.boot()
    assert len(mesh.loop.picture().observed.replicas) == count
    in_time = sum(each.is_serving for each in mesh.loop.picture().observed.replicas)
    assert (in_time == count) == (per_second >= 500.0)
    await asyncio.sleep(1.5 * count / per_second)
    assert sum(each.is_serving for each in mesh.loop.picture().observed.replicas) == count
    assert cluster.others == []
    assert not mesh.failed
    await mesh.crash()


async def with_draining_gateway() -> tuple[Mesh, Actor]:
    """Nothing runs on its node any more, and it has a call."""
    cluster = FakeCluster(1, cpus={"head": 0.0, "n2": 10.0})
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 1, actor=ONE_CPU)
    await mesh.until(lambda: is_running(mesh, "v1", 1))
    (old,) = [actor for actor in cluster.actors.values() if actor.name.endswith("::n2")]
    await mesh.delete()
    old.ongoing = 1
    await mesh.until(lambda: old.is_draining)
    return mesh, old


async def test_a_gateway_that_drains_goes_on_draining_under_a_new_controller() -> None:
    """It refuses calls: the node gets another one when it has ended."""
    mesh, old = await with_draining_gateway()
    await mesh.crash()
    # Deployed just before the controller died.
    app = application("app", "v1", 1)
    app.deployments[0].options.actor.CopyFrom(ONE_CPU)
    store = StateStore(mesh.kv)
    store.put_code(app)
    store.save(with_application(mesh.stored(), app, 0.0))
    await mesh.boot()
    await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 1)
    assert [each.status for each in mesh.loop.status().gateways if each.node_id == "n2"] == [GatewayStatus.DRAINING]
    old.ongoing = 0
    await mesh.until(
        lambda: [each.status for each in mesh.loop.status().gateways if each.node_id == "n2"] == [GatewayStatus.HEALTHY]
    )
    assert old.closed.is_set()
    await mesh.crash()


async def test_a_gateway_that_drains_on_a_node_that_is_needed_again_is_not_taken_for_healthy() -> None:
    mesh, _ = await with_draining_gateway()
    await mesh.deploy("v1", 1, actor=ONE_CPU)
    await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 1)
    await mesh.crash()
    await mesh.boot()
    assert [each.status for each in mesh.loop.status().gateways if each.node_id == "n2"] == [GatewayStatus.DRAINING]
    await mesh.crash()


async def test_a_replica_that_drains_gets_no_calls_from_a_new_controller() -> None:
    """It ends as it was asked to, and no other one in its place."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await mesh.deploy("v1", 3)
    await mesh.until(lambda: is_running(mesh, "v1", 3))
    for actor in mesh.cluster.replicas():
        actor.ongoing = 1
    await mesh.deploy("v1", 2)
    await mesh.until(lambda: any(actor.is_draining for actor in mesh.cluster.replicas()))
    (leaving,) = [actor for actor in mesh.cluster.replicas() if actor.is_draining]
    staying = set(mesh.cluster.replicas()) - {leaving}
    await mesh.crash()
    await mesh.boot()
    names = {actor.name.rpartition("#")[2] for actor in staying}
    assert set(listed(mesh)) == names
    leaving.ongoing = 0
    await mesh.until(lambda: is_running(mesh, "v1", 2))
    assert set(mesh.cluster.replicas()) == staying
    await mesh.crash()


class Forgetful(FakeCluster):
    """Its list of nodes lacks some that live."""

    def __init__(self) -> None:
        super().__init__(1, cpus={"head": 0.0, **{f"n{number}": 10.0 for number in range(5)}})
        self.hidden: set[str] = set()
        self.readings = 0

    async def nodes(self, asker: object = None) -> list[Node]:
        self.readings += 1
        return [node for node in await super().nodes(asker) if node.node_id not in self.hidden]


async def twenty_on(cluster: Forgetful) -> Mesh:
    mesh = Mesh(1, cluster=cluster)
    await mesh.boot()
    await mesh.deploy("v1", 20, actor=ONE_CPU)
    await mesh.until(lambda: is_running(mesh, "v1", 20))
    return mesh


@pytest.mark.parametrize("count", [1, 5])
async def test_one_list_that_lacks_nodes_changes_nothing(count: int) -> None:
    mesh = await twenty_on(cluster := Forgetful())
    before, readings = set(cluster.serving()), cluster.readings
    cluster.hidden = {f"n{number}" for number in range(count)}
    await mesh.until(lambda: cluster.readings > readings)
    cluster.hidden = set()
    for _ in range(600):
        await asyncio.sleep(0.1)
        assert len(listed(mesh)) == 20
    assert set(cluster.serving()) == before
    await mesh.crash()


async def test_a_list_that_lacks_most_nodes_is_not_believed_at_once() -> None:
    mesh = await twenty_on(cluster := Forgetful())
    before = set(cluster.serving())
    cluster.hidden = {f"n{number}" for number in range(3)}
    for _ in range(250):
        await asyncio.sleep(0.1)
        assert len(listed(mesh)) == 20
    assert mesh.loop.waits_for.startswith("3 of 6 nodes are missing")
    cluster.hidden = set()
    await asyncio.sleep(60.0)
    assert mesh.loop.waits_for == ""
    assert set(cluster.serving()) == before
    cluster.hidden = {"n0"}
    gone = sum(actor.node_id == "n0" for actor in before)
    await mesh.until(lambda: len(set(cluster.serving()) - before) == gone)
    await mesh.crash()


class Sick(FakeCluster):
    """All health checks fail while something that the replicas share is away."""

    is_away = False

    async def _check_health(self, actor: Actor) -> None:
        if self.is_away and isinstance(actor.spec, control_pb2.ReplicaSpec):
            raise ActorCallError("ConnectionError: no database")

    async def _construct(self, actor: Actor) -> None:
        await asyncio.sleep(1.0)
        if self.is_away:
            raise ActorCallError("ConnectionError: no database")
        await super()._construct(actor)


@pytest.mark.parametrize(("num_replicas", "most"), [(1, 1), (2, 1), (10, 3)])
async def test_when_all_health_checks_fail_a_third_is_replaced_at_a_time(num_replicas: int, most: int) -> None:
    """The others serve on, and the status says so (item 150)."""
    mesh = Mesh(1, cluster=(cluster := Sick(seed=1)))
    await mesh.boot()
    await mesh.deploy("v1", num_replicas)
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    before = set(cluster.serving())
    cluster.is_away = True
    for _ in range(1200):
        await asyncio.sleep(0.1)
        assert len(listed(mesh)) >= num_replicas - most
    if num_replicas > 1:
        assert "health checks and serve on" in mesh.loop.status().applications[0].deployments[0].message
    cluster.is_away = False
    await mesh.until(lambda: is_running(mesh, "v1", num_replicas))
    assert len(before - set(cluster.serving())) <= most
    await mesh.crash()
