"""Calls of an application with a canary: its share, and that it neither delays calls nor gets others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mesh.link.caller_link import CallerLink
from mesh.routing.canary_candidates import divided
from mesh.routing.choice.locality import Locality
from mesh.routing.choice.traffic_split import TrafficRule, TrafficSplit
from mesh.routing.endpoint import Endpoint
from mesh.routing.snapshot import ReplicaInfo
from tests.unit.routing.waiting.waiting_world import World


class CanaryWorld(World):
    """Some replicas of v1 and some of v2, which is the canary."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stable: int, canary: int, share: float, limit: int = 1) -> None:
        super().__init__(monkeypatch, 0, limit)
        versions = ["v1"] * stable + ["v2"] * canary
        self.endpoints = [
            Endpoint(ReplicaInfo(str(number), "a", version=version), limit) for number, version in enumerate(versions)
        ]
        for endpoint in self.endpoints:
            endpoint.link = CallerLink("r", observer=None)  # type: ignore[arg-type]
        rule = TrafficRule("shop", "v2", share)
        self.pool.split = TrafficSplit(rule, 0.5)
        others, self.pool.canary = divided(self.endpoints, self.endpoints, self.pool.split, None)
        self.pool.all = Locality(others)
        self.pool.local_first = (self.pool.all,)
        self.pool._models.reset(others)

    def versions(self) -> Counter[str]:
        return Counter(endpoint.info.version for endpoint, _ in self.sent)


@pytest.mark.parametrize(("stable", "canary"), [(9, 1), (1, 1), (3, 5)])
@pytest.mark.parametrize("options", [{}, {"model_id": "m"}])
def test_a_canary_gets_its_share_whatever_the_numbers_of_replicas(
    monkeypatch: pytest.MonkeyPatch, stable: int, canary: int, options: dict[str, Any]
) -> None:
    """Within one percent of 10,000 calls, also of those for a model."""
    world = CanaryWorld(monkeypatch, stable, canary, share=0.1)
    for _ in range(10_000):
        world.submit(**options)
        world.end()
    assert abs(world.versions()["v2"] - 1000) <= 1


def test_sessions_are_divided_too_and_each_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = CanaryWorld(monkeypatch, 4, 2, share=0.3)
    for number in range(10_000):
        world.submit(session_id=f"s{number % 5000}")
        world.end()
    first, again = world.sent[:5000], world.sent[5000:]
    assert [endpoint for endpoint, _ in first] == [endpoint for endpoint, _ in again]
    assert abs(world.versions()["v2"] - 3000) <= 200


def test_a_full_canary_delays_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version beside it serves what it has no place for."""
    world = CanaryWorld(monkeypatch, 5, 1, share=1.0)
    for _ in range(6):
        world.submit()
    assert world.versions() == {"v2": 1, "v1": 5}
    assert len(world.calls) == 0


def test_calls_beyond_its_share_wait_for_the_other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that has room is not a reserve: more requests than it was given are more than was risked."""
    world = CanaryWorld(monkeypatch, 1, 1, share=0.0)
    first, second = world.submit(), world.submit()
    assert [call for _, call in world.sent] == [first]
    assert world.pool.canary is not None
    world.calls.dispatch_to(world.pool.canary.all.candidates[0])
    assert [call for _, call in world.sent] == [first]
    world.end()
    assert [call for _, call in world.sent] == [first, second]


def test_a_call_of_its_share_that_waits_goes_where_a_place_is_free_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for freed in (0, 1):
        world = CanaryWorld(monkeypatch, 1, 1, share=1.0)
        world.submit()
        world.submit()
        waits = world.submit()
        world.end(freed)
        assert world.sent[-1][1] is waits


def test_calls_that_came_before_any_replica_was_known_are_divided_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process gets its first calls before its first list of replicas: these take them out, and put them back."""
    world = CanaryWorld(monkeypatch, 10, 10, share=0.5)
    pool, split = world.pool, world.pool.split
    candidates, canary = pool.all, pool.canary
    pool.split, pool.canary, pool.all = None, None, Locality()
    early = [world.submit() for _ in range(10)]
    assert [call.request.context.track for call in early] == [""] * 10
    pool.split, pool.canary, pool.all = split, canary, candidates
    for call in world.calls.drain():
        world.calls.push(call)
    world.calls.dispatch()
    assert world.versions() == {"v1": 5, "v2": 5}


def test_a_version_without_replicas_gets_nothing() -> None:
    endpoints = [Endpoint(ReplicaInfo(str(number), "a", version="v1"), 1) for number in range(2)]
    for version in ("v2", "v1"):  # of v1 there is nothing but canaries: they serve all
        split = TrafficSplit(TrafficRule("shop", version), 0.0)
        assert divided(endpoints, endpoints, split, None) == (endpoints, None)


def test_calls_beside_a_canary_wait_for_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its links are not up yet, or its replicas are left out because they fail: then they serve nevertheless."""
    world = CanaryWorld(monkeypatch, 2, 1, share=0.0)
    first, second, canary = world.endpoints
    monkeypatch.setattr(Endpoint, "is_usable", property(lambda endpoint: endpoint.link is not None))
    split = TrafficSplit(TrafficRule("shop", "v2", 0.0), 0.0)
    assert divided([second, canary], world.endpoints, split, None)[0] == [second]
    assert divided([canary], world.endpoints, split, None)[0] == [first, second], "left out"
    first.link = second.link = None
    others, candidates = divided([canary], world.endpoints, split, None)
    assert others == []
    assert candidates is not None
    assert canary in candidates
