"""A deployment's own request router: in handles and in gateways, on a mesh and in one process."""

from __future__ import annotations

import json
from typing import Any

import pytest

import mesh
from tests.e2e.conftest import Deploy

pytestmark = pytest.mark.timeout(120)
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
