"""All calls of one request go to one version of an application with a canary: real routers and links, two deployments.

The routers of a gateway and of the replicas get their snapshots one after another, in any order.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import pytest

from mesh.handle import DeploymentHandle
from mesh.routing.choice.traffic_split import CallingReplica, TrafficRule
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, Snapshot
from tests.unit.fakes.small_mesh import DEADLINE_S, TOKEN, SmallReplica, do_on_io, on_io, until

FRONT, PRICER = DeploymentKey("shop", "Front"), DeploymentKey("shop", "Pricer")
VERSIONS = ("one", "two")
CANARY_VERSIONS = frozenset({("Front", "two"), ("Pricer", "two")})
_numbers = itertools.count(1)


class Pricer:
    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self) -> str:
        return self.version


class Front:
    def __init__(self, version: str, pricer: DeploymentHandle[Any]) -> None:
        self.version = version
        self.pricer = pricer

    async def __call__(self) -> str:
        return f"{self.version} {await self.pricer.remote()}"


def router_to(key: DeploymentKey, replica: CallingReplica | None = None) -> Router:
    return do_on_io(Router, key, CallerIdentity("test-process", "node", "", TOKEN, replica))


def handle_of(router: Router) -> DeploymentHandle[Any]:
    handle: DeploymentHandle[Any] = DeploymentHandle(router.key.name, router.key.app)
    handle._family.router = router
    return handle


@dataclass
class Shop:
    """A gateway calls Front, each replica of which calls Pricer through a router of its own; one replica a version."""

    gateway: Router = field(default_factory=lambda: router_to(FRONT))
    routers: dict[str, Router] = field(default_factory=dict)
    """To Pricer, by version of the replica of Front that has it."""
    replicas: dict[tuple[DeploymentKey, str], SmallReplica] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for version in VERSIONS:
            self.routers[version] = router = router_to(PRICER, CallingReplica("shop", "Front", version))
            self.replicas[PRICER, version] = SmallReplica(Pricer(version))
            self.replicas[FRONT, version] = SmallReplica(Front(version, handle_of(router)))

    def publish(self, router: Router, *versions: str, share: float | None = 0.5) -> None:
        """Tell a router of the replicas of these versions, and of a canary unless its share is None."""
        named = {each: each if share is not None else "" for each in versions}
        infos = tuple(replace(self.replicas[router.key, each].info, version=named[each]) for each in versions)
        rule = TrafficRule("shop", "two", share, canary_versions=CANARY_VERSIONS) if share is not None else None
        do_on_io(router.update, Snapshot(router.key, next(_numbers), infos, 100, traffic=rule))
        until(lambda: router.link_count == len(infos), "links to all replicas")

    def answers(self, calls: int = 20) -> Counter[str]:
        handle = handle_of(self.gateway)
        return Counter(handle.remote().result(timeout_s=DEADLINE_S) for _ in range(calls))

    def close(self) -> None:
        for router in (self.gateway, *self.routers.values()):
            on_io(router.close())
        for each in self.replicas.values():
            each.close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with patch("mesh.wire.mesh_token._token", TOKEN):
        made = Shop()
        yield made
        made.close()


def test_requests_are_divided_and_each_stays_with_its_version(shop: Shop) -> None:
    for router in (shop.gateway, *shop.routers.values()):
        shop.publish(router, "one", "two")
    assert shop.answers() == {"one one": 10, "two two": 10}


def test_a_replica_that_hears_of_a_canary_before_the_gateway_stays_with_its_version(shop: Shop) -> None:
    """The requests come to it without a decision."""
    shop.publish(shop.gateway, "one", share=None)
    shop.publish(shop.routers["one"], "one", "two")
    assert shop.answers() == {"one one": 20}


def test_a_canary_that_has_not_started_everywhere_gets_no_calls_of_the_version_beside_it(shop: Shop) -> None:
    """The gateway decides for the canary, but only the version beside it has a replica to serve the request."""
    shop.publish(shop.gateway, "one", share=1.0)
    shop.publish(shop.routers["one"], "one", "two", share=1.0)
    assert shop.answers() == {"one one": 20}


def test_a_replica_that_hears_of_a_promotion_after_the_gateway_stays_with_its_version(shop: Shop) -> None:
    """Also one of the version before, as long as that is listed."""
    shop.publish(shop.gateway, "one", "two", share=None)
    for router in shop.routers.values():
        shop.publish(router, "one", "two")
    seen = shop.answers(40)
    assert seen.keys() == {"one one", "two two"}, seen


def test_replicas_that_callers_know_already_can_become_those_of_a_canary(shop: Shop) -> None:
    """Of an update that was undone and is deployed again as a canary: the first snapshots had no versions."""
    for share in (None, 0.5):
        for router in (shop.gateway, *shop.routers.values()):
            shop.publish(router, "one", "two", share=share)
    assert shop.answers() == {"one one": 10, "two two": 10}


def test_a_call_that_came_before_the_first_snapshot_stays_with_a_version_too(shop: Shop) -> None:
    early = handle_of(shop.gateway).remote()
    until(lambda: shop.gateway.queued == 1, "the call to wait")
    for router in (*shop.routers.values(), shop.gateway):
        shop.publish(router, "one", "two", share=1.0)
    assert early.result(timeout_s=DEADLINE_S) in ("one one", "two two")


def test_where_a_version_has_no_replica_the_other_one_serves_its_calls(shop: Shop) -> None:
    """The limit of the promise: a call is not refused, and does not wait, for its version."""
    shop.publish(shop.gateway, "one", "two", share=1.0)
    shop.publish(shop.routers["two"], "one", share=1.0)
    assert shop.answers() == {"two one": 20}
    # After a promotion, a replica of the version before still ends its requests.
    shop.publish(shop.gateway, "one", share=None)
    shop.publish(shop.routers["one"], "two", share=None)
    assert shop.answers() == {"one two": 20}
