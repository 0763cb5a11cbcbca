"""Handles that reach every replica at once, and calls in two steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import mesh
from tests.e2e.conftest import Deploy

TIMEOUT_S = 20.0


@mesh.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0})
class Cache:
    def __init__(self) -> None:
        self.generation = 0

    async def clear(self, generation: int) -> str:
        self.generation = generation
        return mesh.get_replica_context().replica_tag

    async def where(self) -> tuple[str, int]:
        return mesh.get_replica_context().replica_tag, self.generation


@pytest.fixture(scope="module")
def cache(deploy: Deploy) -> mesh.DeploymentHandle[Any]:
    return deploy(Cache.bind(), "broadcast")


def test_every_replica_gets_a_broadcast(cache: mesh.DeploymentHandle[Any]) -> None:
    """Each answers once, and calls see what it has changed, wherever they go (item 5)."""
    cache.where.remote().result(timeout_s=TIMEOUT_S)
    tags = cache.broadcast("clear", 3).results(timeout_s=TIMEOUT_S)
    assert len(set(tags)) == len(tags) >= 1
    seen = [cache.where.remote().result(timeout_s=TIMEOUT_S) for _ in range(10)]
    assert {generation for _, generation in seen} == {3}
    assert {tag for tag, _ in seen} <= set(tags)


def test_a_call_goes_to_the_replica_that_was_chosen(cache: mesh.DeploymentHandle[Any]) -> None:
    """Its id, node and deployment are known before the call is made (item 130)."""

    async def call() -> None:
        async with cache.where.choose_replica() as chosen:
            tag, _ = await cache.where.dispatch(chosen)
            assert tag == chosen.replica_id
            assert chosen.replica_id.deployment_id == cache.deployment_id
            assert chosen.node_id

    asyncio.run(call())
