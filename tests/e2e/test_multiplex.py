"""Multiplexed models: routing by model id, one load for many callers, eviction, failures (items 115–125, 176–179)."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

import mesh
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.metrics import value
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

MODELS_MAX = 2


class Model:
    def __init__(self, model_id: str, log: list[str]) -> None:
        self.model_id = model_id
        self._log = log

    def __del__(self) -> None:
        self._log.append(f"unload {self.model_id}")


@small(num_replicas=2, max_ongoing_requests=100)
class Models:
    def __init__(self) -> None:
        self._log: list[str] = []

    @mesh.multiplexed(max_num_models_per_replica=MODELS_MAX)
    async def load(self, model_id: str) -> Model:
        self._log.append(f"load {model_id}")
        await asyncio.sleep(0.05)
        if model_id.startswith("broken"):
            raise LookupError(model_id)
        return Model(model_id, self._log)

    async def __call__(self) -> tuple[str, str, list[str]]:
        """The model that served, the replica, and what this replica has loaded and unloaded so far."""
        model = await self.load(mesh.get_multiplexed_model_id())
        return model.model_id, mesh.get_replica_context().replica_id, list(self._log)

    async def model_id(self) -> str:
        return mesh.get_multiplexed_model_id()


@small(num_replicas=2, max_ongoing_requests=2)
class Hot:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    @mesh.multiplexed(max_num_models_per_replica=1)
    async def load(self, model_id: str) -> str:
        return model_id

    async def __call__(self, label: str) -> str:
        await self.load(mesh.get_multiplexed_model_id())
        await self._gate.wait.remote(label)
        return mesh.get_replica_context().replica_id


@small(max_ongoing_requests=100)
class Caller:
    def __init__(self, models: Handle) -> None:
        self._models = models

    async def __call__(self) -> tuple[str, str, str]:
        """The model id here, at a plain child call, and at one that sets its own."""
        own = mesh.get_multiplexed_model_id()
        child = await self._models.model_id.remote()
        other = await self._models.model_id.options(multiplexed_model_id="other").remote()
        return own, child, other


@pytest.fixture(scope="module")
def caller(deploy: Deploy, gateway: Gateway) -> Handle:
    handle = deploy(Caller.bind(Models.bind()), "multiplex")
    mesh.get_deployment_handle("Models", "multiplex").model_id.remote().result(timeout_s=10)
    labels = {"application": "multiplex", "deployment": "Models"}
    until(lambda: value(gateway, "mesh_links", **labels) == 2)
    return handle


@pytest.fixture
def models(caller: Handle) -> Handle:
    return mesh.get_deployment_handle("Models", "multiplex")


def test_a_model_is_served_where_it_is_loaded_and_new_ones_go_where_fewest_are(models: Handle) -> None:
    """Four models have room on two replicas, which are empty: this test is first (items 176, 177)."""
    ids = [f"spread {number}" for number in range(2 * MODELS_MAX)]

    def one_round() -> list[tuple[str, str]]:
        return [models.options(multiplexed_model_id=each).remote().result(timeout_s=10)[:2] for each in ids]

    placed = dict(one_round())
    assert Counter(placed.values()) == dict.fromkeys(placed.values(), MODELS_MAX)
    assert all(dict(one_round()) == placed for _ in range(3))


def test_the_model_id_is_set_for_each_hop(caller: Handle) -> None:
    """A child call does not inherit it (items 13, 124)."""
    assert caller.options(multiplexed_model_id="mine").remote().result(timeout_s=10) == ("mine", "", "other")
    assert caller.remote().result(timeout_s=10) == ("", "", "other")


def test_many_callers_of_a_model_share_one_load(models: Handle) -> None:
    """Each replica loads it once at most (item 119)."""
    calls = [models.options(multiplexed_model_id="shared").remote() for _ in range(50)]
    answers = [call.result(timeout_s=10) for call in calls]
    assert {model_id for model_id, _, _ in answers} == {"shared"}
    by_replica = {replica_id: log for _, replica_id, log in answers}
    assert all(log.count("load shared") == 1 for log in by_replica.values())


def test_the_least_recently_used_model_is_unloaded_before_another_loads(models: Handle) -> None:
    """Never more models than the limit are resident (items 119, 120)."""
    log: list[str] = []
    for number in range(2 * MODELS_MAX + 2):
        _, _, log = models.options(multiplexed_model_id=f"lru {number}").remote().result(timeout_s=10)
    resident: set[str] = set()
    for entry in log:
        action, _, model_id = entry.partition(" ")
        (resident.add if action == "load" else resident.discard)(model_id)
        assert len(resident) <= MODELS_MAX, log


def test_loads_and_unloads_are_metrics(models: Handle, gateway: Gateway) -> None:
    """Of both replicas together; the tests before have loaded more models than there is room for (item 119)."""
    labels = {"application": "multiplex", "deployment": "Models", "function_name": "load"}
    assert value(gateway, "mesh_num_multiplexed_models", **labels) <= 2 * MODELS_MAX
    loads = value(gateway, "mesh_multiplexed_models_load_total", **labels)
    unloads = value(gateway, "mesh_multiplexed_models_unload_total", **labels)
    assert 0 < unloads < loads


def test_a_hot_model_spreads_when_its_replica_is_full(deploy: Deploy) -> None:
    """A second replica loads it too (items 177, 178)."""
    hot = deploy(Hot.bind(Gate.bind()), "hot").options(multiplexed_model_id="hot")
    gate = mesh.get_deployment_handle("Gate", "hot")
    calls = [hot.remote("all") for _ in range(4)]
    until(lambda: gate.entered.remote().result(timeout_s=10).count("all") == 4)
    gate.open.remote("all").result(timeout_s=10)
    assert sorted(Counter(call.result(timeout_s=10) for call in calls).values()) == [2, 2]


def test_a_failed_load_reaches_its_caller_and_is_tried_again(models: Handle) -> None:
    """Nothing is kept of a failed load (item 121)."""
    broken = models.options(multiplexed_model_id="broken")
    for _ in range(2):
        with pytest.raises(LookupError, match="broken"):
            broken.remote().result(timeout_s=10)


def test_an_empty_model_id_is_refused(models: Handle) -> None:
    """A call without a model id cannot load one (item 118)."""
    with pytest.raises(ValueError, match="model id is empty"):
        models.remote().result(timeout_s=10)


def size_of(model_id: str) -> int:
    return int(model_id.rpartition("-")[2])


@small(num_replicas=2, max_ongoing_requests=100)
class Budgeted(shop_pb2_grpc.ShopServicer):
    """Models have their size in their name."""

    def __init__(self) -> None:
        self._log: list[str] = []

    @mesh.multiplexed(
        max_num_models_per_replica=-1,
        max_bytes_per_replica=10,
        model_size_fn=size_of,
        preload=["base-4"],
        aliases={"stable": "base-4"},
        min_copies=2,
    )
    async def load(self, model_id: str) -> Model:
        self._log.append(f"load {model_id}")
        return Model(model_id, self._log)

    async def log(self) -> list[str]:
        return self._log

    async def __call__(self) -> str:
        return (await self.load(mesh.get_multiplexed_model_id())).model_id

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self())


def resident(log: list[str]) -> set[str]:
    """The models at the end of a replica's log. At no time they had more than their 10 bytes."""
    models: set[str] = set()
    for action, model_id in (line.split() for line in log):
        (models.add if action == "load" else models.remove)(model_id)
        assert sum(map(size_of, models)) <= 10, log
    return models


def test_models_have_a_budget_of_bytes_copies_aliases_and_a_preload(deploy: Deploy, channel: grpc.Channel) -> None:
    """For calls of handles and of gRPC clients, which name a model in their metadata (items 119, 124, 176)."""
    handle = deploy(Budgeted.bind(), "budgeted")
    shop = shop_pb2_grpc.ShopStub(channel)

    def price(model_id: str) -> str:
        metadata = (("application", "budgeted"), ("multiplexed_model_id", model_id))
        return shop.Price(shop_pb2.Item(), metadata=metadata, timeout=20).name

    def logs() -> list[list[str]]:
        return handle.broadcast("log").results(timeout_s=20)

    assert logs() == [["load base-4"]] * 2, "before the first call"
    assert price("stable") == price("base-4") == "base-4"
    assert handle.options(multiplexed_model_id="stable").remote().result(timeout_s=20) == "base-4"
    assert logs() == [["load base-4"]] * 2, "an alias is no other model"
    for call in (price, lambda model_id: handle.options(multiplexed_model_id=model_id).remote().result(timeout_s=20)):
        assert [call("large-7") for _ in range(5)] == ["large-7"] * 5
        assert [call("next-5") for _ in range(5)] == ["next-5"] * 5
    # Each has 7 of 10 bytes, so another model takes its place; and each is on both replicas.
    assert [resident(log) for log in logs()] == [{"next-5"}] * 2
    with pytest.raises(Exception, match="11 bytes, more than max_bytes_per_replica=10"):
        handle.options(multiplexed_model_id="huge-11").remote().result(timeout_s=20)
    assert price("next-5") == "next-5"
