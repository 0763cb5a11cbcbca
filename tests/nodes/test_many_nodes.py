"""Several nodes: placement, messages without room, and nodes that are drained or die."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import ray

import mesh
from mesh.client import mesh_lifecycle
from mesh.client.drain_wait import until_drained
from mesh.cluster import ray_core
from mesh.exceptions import ReplicaUnavailableError
from mesh.logs.log_files import LogName
from mesh.logs.log_records import LogQuery
from tests.e2e.conftest import Deploy
from tests.e2e.gate import small
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until
from tests.nodes.conftest import CPUS_PER_NODE, Nodes
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]
AT_ONCE_S = 5.0
"""Far below the time in which Ray notices the death of a node."""


@small(max_ongoing_requests=1000)
class Where(shop_pb2_grpc.ShopServicer):
    """Tells on which node it is."""

    async def __call__(self) -> str:
        return ray_core.node_id()

    async def Price(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(0.005)
        return shop_pb2.Item(name=await self())

    async def hold(self) -> AsyncIterator[str]:
        """Yields its node, then nothing more."""
        yield ray_core.node_id()
        await asyncio.Event().wait()


def nodes_of(app: str) -> Counter[str]:
    """How many of its replicas run on which node."""
    return Counter(replica.node_id for replica in running(app, "Where").values())


def message_of(app: str) -> str:
    return mesh.status().applications[app].deployments["Where"].message


# ---- logs ------------------------------------------------------------------------------------------------------------


def test_the_log_files_of_another_node_are_read_there(deploy: Deploy, nodes: Nodes) -> None:
    deploy(Where.bind(), "elsewhere")
    task = ray_core.start_task("mesh.logs.log_reader:read_node", (LogQuery(apps=("elsewhere",)), {}), nodes.near)
    page = ray_core.get_object(task, 60)
    (replica_id,) = running("elsewhere", "Where")
    assert LogName("replica", "elsewhere", "Where", replica_id) in page.names
    assert any("serving" in record.text for record in page.records)


# ---- where replicas go -----------------------------------------------------------------------------------------------


def test_replicas_are_spread_over_the_nodes(deploy: Deploy, nodes: Nodes) -> None:
    """The head takes its share, and keeps it longest (items 191, 193)."""
    deploy(Where.options(num_replicas=6).bind(), "spread")
    assert nodes_of("spread") == {nodes.head: 2, nodes.near: 2, nodes.far: 2}
    mesh_lifecycle.require().scale("spread", "Where", 3)
    until(lambda: sum(nodes_of("spread").values()) == 3)
    assert nodes_of("spread")[nodes.head] == 2


def test_a_node_holds_as_many_replicas_as_it_may(deploy: Deploy, nodes: Nodes) -> None:
    """The fourth replica waits for a fourth node, and the status says so (item 87)."""
    deploy(Where.options(num_replicas=4, max_replicas_per_node=1).bind(), "few", is_awaited=False)
    until(lambda: nodes_of("few") == {nodes.head: 1, nodes.near: 1, nodes.far: 1}, timeout_s=30)
    assert "1 of 4 replicas wait for room" in message_of("few")
    assert "3 nodes take replicas, and max_replicas_per_node is 1" in message_of("few")


def test_a_gateway_and_a_handle_prefer_their_own_node_then_their_zone(deploy: Deploy, nodes: Nodes) -> None:
    """A handle does so only when asked (item 169)."""
    handle = deploy(Where.options(num_replicas=3, max_replicas_per_node=1).bind(), "local")
    # A caller goes elsewhere only until it is connected to the replica next to it.
    until(lambda: {ask_over_grpc(nodes, "local") for _ in range(20)} == {nodes.head})
    local = handle.options(_prefer_local_routing=True)
    until(lambda: {local.remote().result(timeout_s=10) for _ in range(20)} == {nodes.head})
    until(lambda: {handle.remote().result(timeout_s=10) for _ in range(60)} == {nodes.head, nodes.near, nodes.far})
    deploy(Where.options(num_replicas=2, max_replicas_per_node=1).bind(), "zone")
    assert nodes_of("zone") == {nodes.near: 1, nodes.far: 1}
    until(lambda: {ask_over_grpc(nodes, "zone") for _ in range(20)} == {nodes.near})


def ask_over_grpc(nodes: Nodes, app: str) -> str:
    with grpc.insecure_channel(nodes.grpc_address) as channel:
        stub = shop_pb2_grpc.ShopStub(channel)
        return str(stub.Price(shop_pb2.Item(), metadata=(("application", app),), timeout=10).name)


def test_the_controller_is_on_the_head_also_after_a_restart(nodes: Nodes) -> None:
    """So no node that operators drain, or lose, has it."""

    def controller() -> tuple[str, int]:
        shown = mesh.status().controller
        assert shown is not None
        return shown.node_id, shown.restarts

    node_id, restarts = controller()
    assert node_id == nodes.head
    ray.kill(ray.get_actor("MESH_CONTROLLER", namespace="mesh"), no_restart=False)
    until(lambda: controller() == (nodes.head, restarts + 1), timeout_s=30)


# ---- messages while there is no room ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        ({"num_cpus": 64}, "no node is that large: the largest node has {CPU: 2} in all"),
        ({"num_cpus": 0, "num_gpus": 1}, "no node has any GPU"),
        ({"num_cpus": 0, "resources": {"unobtainium": 1}}, "no node has any unobtainium"),
    ],
)
def test_a_request_that_never_fits_is_reported(deploy: Deploy, actor: dict[str, Any], words: str) -> None:
    deploy(Where.options(ray_actor_options=actor).bind(), "never", is_awaited=False)
    until(lambda: words in message_of("never"))
    assert not running("never", "Where")


def test_an_update_of_a_full_cluster_makes_room_at_once(deploy: Deploy, nodes: Nodes) -> None:
    """A replica beyond the room waits, and the status says what there is (C17)."""
    full = Where.options(num_replicas=3, ray_actor_options={"num_cpus": 2})
    deploy(full.bind(), "full")
    before = running("full", "Where").keys()
    deploy(full.bind(), "full")
    assert not before & running("full", "Where").keys()
    deploy(full.options(num_replicas=4).bind(), "full", is_awaited=False)
    wanted = "each asks for {CPU: 2}; the roomiest node has {CPU: 0} free of {CPU: 2} (3 nodes take replicas)."
    until(lambda: wanted in message_of("full"), timeout_s=30)


def test_ray_keeps_what_waits_in_its_queue_off_a_cordoned_node(deploy: Deploy, nodes: Nodes) -> None:
    """The room there does not count, and is used at once when the node takes replicas again."""
    client = mesh_lifecycle.require()
    for node_id in (nodes.near, nodes.far):
        client.cordon(node_id)
    whole_node = Where.options(num_replicas=2, ray_actor_options={"num_cpus": CPUS_PER_NODE})
    deploy(whole_node.bind(), "queued", is_awaited=False)
    until(lambda: "1 of 2 replicas wait for room" in message_of("queued") and nodes_of("queued") == {nodes.head: 1})
    for node_id in (nodes.near, nodes.far):
        client.uncordon(node_id)
    until(lambda: len(running("queued", "Where")) == 2, timeout_s=30)
    assert sorted(nodes_of("queued").values()) == [1, 1]


# ---- placement groups ------------------------------------------------------------------------------------------------


def groups() -> dict[str, list[str]]:
    """Nodes of the bundles of every placement group of the mesh."""
    table = ray.util.placement_group_table().values()
    there = [each for each in table if each["name"].startswith("MESH_") and each["state"] != "REMOVED"]
    return {each["name"]: list(each["bundles_to_node_id"].values()) for each in there}


def test_every_replica_has_its_placement_group_and_leaves_none_behind(deploy: Deploy) -> None:
    """That holds when it dies and when the controller does (item 88)."""
    bundles = [{"CPU": 1}, {"CPU": 1}]
    spread = Where.options(
        num_replicas=2,
        ray_actor_options={"num_cpus": 1},
        placement_group_bundles=bundles,
        placement_group_strategy="STRICT_SPREAD",
    )
    deploy(spread.bind(), "groups")
    assert len(groups()) == 2
    for node_ids in groups().values():
        assert len(set(node_ids)) == 2
    assert {each.node_id for each in replicas("groups", "Where")} == {each[0] for each in groups().values()}
    before = groups()
    dying = next(iter(running("groups", "Where").values()))
    ray.kill(ray.get_actor(next(name for name in before if name.endswith(dying.replica_id)), namespace="mesh"))
    until(lambda: len(groups()) == 2 and groups() != before and len(running("groups", "Where")) == 2, timeout_s=30)
    ray.kill(ray.get_actor("MESH_CONTROLLER", namespace="mesh"), no_restart=False)
    before = groups()
    until(lambda: len(running("groups", "Where")) == 2, timeout_s=30)
    assert groups() == before
    mesh.delete("groups")
    assert groups() == {}


# ---- nodes that end --------------------------------------------------------------------------------------------------


def test_calls_on_a_node_that_dies_fail_at_once_and_its_replicas_are_replaced(deploy: Deploy, nodes: Nodes) -> None:
    """It takes seconds, not tens of them, and calls elsewhere go on."""
    victim = nodes.add()
    handle = deploy(Where.options(num_replicas=8).bind(), "dying")
    assert nodes_of("dying")[victim] == 2
    lost = {replica.replica_id for replica in running("dying", "Where").values() if replica.node_id == victim}
    held = [Held(handle) for _ in range(40)]
    until(lambda: all(each.node_id for each in held))
    dying = [each for each in held if each.node_id == victim]
    assert dying
    nodes.kill(victim)
    until(lambda: all(each.error for each in dying), timeout_s=AT_ONCE_S)
    for each in dying:
        assert isinstance(each.error, ReplicaUnavailableError)
        assert any(replica_id in str(each.error) for replica_id in lost)
    assert not [each for each in held if each.error and each not in dying]
    assert handle.remote().result(timeout_s=AT_ONCE_S) != victim
    # Ray needs a quarter of a minute to declare the node dead.
    until(lambda: sum(nodes_of("dying").values()) == 8 and victim not in nodes_of("dying"), timeout_s=12)
    for each in held:
        each.cancel()


class Held:
    """A call that stays on its replica until it is cancelled; a thread waits for its end."""

    def __init__(self, handle: Handle) -> None:
        self.node_id = ""
        self.error: BaseException | None = None
        self._answers = handle.options(method_name="hold", stream=True).remote()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        self._answers.cancel()
        self._thread.join(timeout=10)

    def _wait(self) -> None:
        try:
            for node_id in self._answers:
                self.node_id = node_id
        except Exception as error:
            self.error = error


def test_a_node_that_is_drained_loses_no_request(deploy: Deploy, nodes: Nodes) -> None:
    """Replacements start first, and callers notice nothing (item 192)."""
    leaving = nodes.add()
    handle = deploy(Where.options(num_replicas=4).bind(), "drained")
    until(lambda: nodes_of("drained")[leaving] == 1)
    with Load(handle, nodes, "drained") as load:
        nodes.drain(leaving, int((time.time() + 60) * 1000))
        until(lambda: leaving not in nodes_of("drained") and sum(nodes_of("drained").values()) == 4, timeout_s=30)
        seen = load.count
        until(lambda: load.count > seen + 100)
    assert load.errors == []
    assert mesh.status().applications["drained"].deployments["Where"].status == "HEALTHY"
    nodes.kill(leaving)


def test_a_node_that_an_operator_drains_loses_no_request(deploy: Deploy, nodes: Nodes) -> None:
    """Each replica serves until another one does; the node takes no new one until it is uncordoned (item 192)."""
    leaving, client = nodes.add(), mesh_lifecycle.require()
    handle = deploy(Where.options(num_replicas=4).bind(), "moved")
    until(lambda: nodes_of("moved")[leaving] == 1)
    steps: list[int] = []
    with Load(handle, nodes, "moved") as load:
        client.cordon(leaving[:16], is_draining=True)
        until_drained(client, leaving, lambda status: steps.append(status.moved_replicas), timeout_s=30)
        seen = load.count
        until(lambda: load.count > seen + 100)
    assert load.errors == []
    assert (steps[0], steps[-1]) == (0, 1)
    client.scale("moved", "Where", 6)
    until(lambda: nodes_of("moved") == {nodes.head: 2, nodes.near: 2, nodes.far: 2}, timeout_s=30)
    client.uncordon(leaving)
    client.scale("moved", "Where", 7)
    until(lambda: nodes_of("moved")[leaving] == 1, timeout_s=30)
    mesh.delete("moved")
    nodes.kill(leaving)


class Load:
    """Callers by handle and by gRPC who never pause."""

    def __init__(self, handle: Handle, nodes: Nodes, app: str) -> None:
        self.count = 0
        self.errors: list[BaseException] = []
        self._is_over = threading.Event()
        self._channel = grpc.insecure_channel(nodes.grpc_address)
        stub, metadata = shop_pb2_grpc.ShopStub(self._channel), (("application", app),)
        calls: tuple[Callable[[], object], ...] = (
            lambda: handle.remote().result(timeout_s=10),
            lambda: stub.Price(shop_pb2.Item(), metadata=metadata, timeout=10),
        )
        self._threads = [threading.Thread(target=self._call, args=(call,)) for call in calls * 2]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        until(lambda: self.count > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(timeout=20)
        self._channel.close()

    def _call(self, call: Callable[[], object]) -> None:
        while not self._is_over.is_set():
            try:
                call()
                self.count += 1
            except Exception as error:
                self.errors.append(error)
                return
