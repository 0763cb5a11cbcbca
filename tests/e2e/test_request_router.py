"""A deployment's own request router: in handles and in gateways, on a mesh and in one process."""

from __future__ import annotations

import json
from typing import Any

import grpc

import mesh
from tests.e2e.conftest import Deploy
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

TIMEOUT_S = 20.0


@mesh.deployment(
    num_replicas=2,
    ray_actor_options={"num_cpus": 0},
    request_router_config={"request_router_class": "tests.unit.fakes.request_routers:ByShard"},
)
class Sharded:
    async def __call__(self, shard: int) -> str:
        return mesh.get_replica_context().replica_tag


@mesh.deployment(
    num_replicas=2,
    ray_actor_options={"num_cpus": 0},
    request_router_config={"request_router_class": "tests.unit.fakes.request_routers:Raises"},
)
class Failing:
    async def __call__(self, shard: int) -> str:
        return json.dumps(shard)


def test_calls_go_where_the_class_says(deploy: Deploy) -> None:
    """Always to the same replica for the same argument (items 171, 172)."""
    handle = deploy(Sharded.bind(), "sharded")
    handle.broadcast("__call__", 0).results(timeout_s=TIMEOUT_S)
    places: dict[int, set[Any]] = {0: set(), 1: set()}
    for number in range(20):
        places[number % 2].add(handle.remote(number % 2).result(timeout_s=TIMEOUT_S))
    assert [len(place) for place in places.values()] == [1, 1]


def test_a_class_that_raises_stops_no_call(deploy: Deploy) -> None:
    """The usual rules apply (item 171)."""
    handle = deploy(Failing.bind(), "failing-router")
    assert [handle.remote(number).result(timeout_s=TIMEOUT_S) for number in range(5)] == ["0", "1", "2", "3", "4"]


@mesh.deployment(
    num_replicas=2,
    ray_actor_options={"num_cpus": 0},
    request_router_config={
        "request_router_class": "tests.unit.fakes.request_routers:ByOwnFigures",
        "request_routing_stats_period_s": 0.1,
    },
)
class Opened:
    def __init__(self) -> None:
        self.is_open = True
        self.asked = 0

    def __call__(self) -> str:
        return mesh.get_replica_context().replica_tag

    def open_only(self, name: str) -> None:
        self.is_open = name == mesh.get_replica_context().replica_tag

    def record_routing_stats(self) -> dict[str, bool]:
        return {"is_open": self.is_open}

    async def record_replica_metadata(self) -> dict[str, Any]:
        self.asked += 1
        return {"name": mesh.get_replica_context().replica_tag, "asked": self.asked}


def test_calls_go_by_what_replicas_say_of_themselves(deploy: Deploy) -> None:
    """Their metadata, asked for once, and their latest figures (items 155, 175)."""
    handle = deploy(Opened.bind(), "own-figures")
    chosen = handle.remote().result(timeout_s=TIMEOUT_S)
    handle.broadcast("open_only", chosen).results(timeout_s=TIMEOUT_S)

    def called() -> set[str]:
        return {handle.remote().result(timeout_s=TIMEOUT_S) for _ in range(10)}

    until(lambda: called() == {chosen})
    with handle.choose_replica() as selection:
        assert selection.replica_metadata == {"name": str(selection.replica_id), "asked": 1}


@mesh.deployment(
    num_replicas=2,
    ray_actor_options={"num_cpus": 0},
    request_router_config={"request_router_class": "tests.unit.fakes.request_routers:ByMetadata"},
)
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=mesh.get_replica_context().replica_tag)


def test_calls_of_grpc_clients_go_where_the_class_says(deploy: Deploy, channel: grpc.Channel) -> None:
    """The gateway runs the class, which reads the metadata of the client (items 171, 172)."""
    deploy(Shop.bind(), "sharded-shop")
    stub = shop_pb2_grpc.ShopStub(channel)

    def place(shard: int) -> str:
        metadata = (("application", "sharded-shop"), ("x-shard", str(shard)))
        return stub.Price(shop_pb2.Item(), metadata=metadata, timeout=TIMEOUT_S).name

    # A gateway that has only one of the links yet knows one candidate.
    until(lambda: place(0) != place(1))
    assert [len({place(shard) for _ in range(10)}) for shard in (0, 1)] == [1, 1]
