"""Outlier ejection and slow start, as rules in fake time and over real links."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.exceptions import GrpcStatusError
from mesh.routing.choice.picker import start_weight
from mesh.routing.endpoint import Endpoint
from mesh.routing.outlier_ejection import CallHealth, EjectionLimits, find_outliers, left_out
from mesh.settings import settings
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until

pytestmark = pytest.mark.timeout(60)
LIMITS = EjectionLimits(failure_share=0.3, min_s=2.0, max_s=60.0)
DEADLINE_S = 30.0
shares = st.floats(0.0, 1.0)


def healths(*failure_shares: float) -> dict[int, CallHealth]:
    return dict(enumerate(CallHealth(share) for share in failure_shares))


def fail(health: CallHealth, calls: int) -> CallHealth:
    for _ in range(calls):
        health.record_failure()
    return health


def test_five_failures_in_a_row_are_no_reason_and_six_are() -> None:
    replicas = healths(0, 0, 0, 0)
    fail(replicas[0], 5)
    assert find_outliers(replicas, LIMITS) == []
    fail(replicas[0], 1)
    assert find_outliers(replicas, LIMITS) == [0]


@given(st.lists(shares, min_size=1, max_size=12))
def test_an_outlier_fails_clearly_more_often_than_the_others(failure_shares: list[float]) -> None:
    for outlier in find_outliers(healths(*failure_shares), LIMITS):
        others = [share for number, share in enumerate(failure_shares) if number != outlier]
        assert failure_shares[outlier] >= sum(others) / len(others) + LIMITS.failure_share - 1e-9


@given(shares, st.integers(1, 12))
def test_a_deployment_that_fails_as_a_whole_loses_no_replica(share: float, count: int) -> None:
    assert find_outliers(healths(*[share] * count), LIMITS) == []


@given(st.lists(st.tuples(shares, st.booleans()), max_size=12))
def test_at_most_a_third_is_left_out_and_the_worst_first(replicas: list[tuple[float, bool]]) -> None:
    known = {n: CallHealth(share, returns_at_s=9.0 if out else 0.0) for n, (share, out) in enumerate(replicas)}
    out = left_out(known)
    assert len(out) <= len(known) / 3
    kept = [health.failure_share for n, health in known.items() if health.is_ejected and n not in out]
    assert all(known[n].failure_share >= share for n in out for share in kept)
    assert len(out) == min(len(known) // 3, sum(health.is_ejected for health in known.values()))


@given(st.floats(0.0, 1e6), st.integers(1, 40))
def test_each_ejection_lasts_longer_up_to_the_maximum(now_s: float, times: int) -> None:
    health, durations = CallHealth(1.0), []
    for _ in range(times):
        durations.append(health.eject(LIMITS, now_s))
        assert health.returns_at_s == now_s + durations[-1]
        health.readmit(LIMITS)
    assert durations == [min(60.0, 2.0 * 2**n) for n in range(times)]


def test_a_replica_that_returns_is_out_again_after_two_failures() -> None:
    replicas = healths(1.0, 0, 0)
    replicas[0].eject(LIMITS, now_s=5.0)
    assert find_outliers(replicas, LIMITS) == [], "it is out already"
    replicas[0].readmit(LIMITS)
    fail(replicas[0], 1)
    assert find_outliers(replicas, LIMITS) == []
    fail(replicas[0], 1)
    assert find_outliers(replicas, LIMITS) == [0]


def test_calls_that_go_well_wipe_out_the_past() -> None:
    health = CallHealth(1.0)
    health.eject(LIMITS, now_s=0.0)
    health.readmit(LIMITS)
    for _ in range(60):
        health.record_success()
    assert health == CallHealth()


def test_failures_that_all_replicas_have_alike_are_no_reason() -> None:
    """One call in ten fails everywhere, for a long time."""
    draw = random.Random(1)
    replicas = healths(0, 0, 0, 0)
    for _ in range(5_000):
        for health in replicas.values():
            if draw.random() < 0.1:
                health.record_failure()
            else:
                health.record_success()
        assert not find_outliers(replicas, LIMITS)


@given(st.floats(0.0, 100.0), st.floats(0.0, 10.0))
def test_the_weight_grows_from_a_tenth_to_one(since_s: float, duration_s: float) -> None:
    weight = start_weight(since_s, duration_s)
    assert 0.1 <= weight <= 1
    assert weight <= start_weight(since_s + 1, duration_s)
    assert start_weight(duration_s, duration_s) == 1


class Worker:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0

    async def work(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        await asyncio.sleep(0.02)


class Traffic:
    """32 calls in flight until something holds, and how they ended."""

    def __init__(self) -> None:
        self.failed = self.succeeded = 0

    @property
    def calls(self) -> int:
        return self.failed + self.succeeded

    async def run(self, handle: Any, is_over: Callable[[Traffic], bool]) -> Traffic:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(self._call(handle, is_over) for _ in range(32)))
        return self

    async def _call(self, handle: Any, is_over: Callable[[Traffic], bool]) -> None:
        while not is_over(self):
            try:
                await handle.remote()
                self.succeeded += 1
            except (OSError, GrpcStatusError):
                self.failed += 1


def traffic(mesh: SmallMesh, is_over: Callable[[Traffic], bool]) -> Traffic:
    return asyncio.run(Traffic().run(mesh.handle("work"), is_over))


def endpoints(mesh: SmallMesh) -> Iterable[Endpoint]:
    return mesh.endpoints.values()


def test_one_broken_replica_of_four_fails_few_calls(caplog: pytest.LogCaptureFixture) -> None:
    """It answers at once, so it is always the least loaded; 54 % of the calls went there."""
    with mesh_of(Worker(OSError("disk full")), Worker(), Worker(), Worker()) as mesh:
        traffic(mesh, lambda _: mesh.router.counts.left_out == 1)
        later = traffic(mesh, lambda so_far: so_far.calls >= 2_000)
        assert later.failed <= 0.05 * later.calls
        assert f"leaving out replica {mesh.replicas[0].replica_id} for 2 s" in caplog.text


def test_a_replica_that_works_again_is_found_again() -> None:
    with mesh_of(Worker(OSError("disk full")), Worker(), Worker()) as mesh:
        broken = mesh.replicas[0].target
        traffic(mesh, lambda _: mesh.router.counts.left_out == 1)
        assert mesh.router.link_count == 3
        broken.error, broken.calls = None, 0
        until(lambda: mesh.router.counts.left_out == 0, "the end of the ejection")
        assert broken.calls == 0
        later = traffic(mesh, lambda _: broken.calls >= 10)
        assert later.failed == 0


def test_an_outlier_of_two_replicas_gets_a_small_share(caplog: pytest.LogCaptureFixture) -> None:
    """A third of two is none, so it cannot be left out, and no log says so."""
    with mesh_of(Worker(OSError("disk full")), Worker()) as mesh:
        traffic(mesh, lambda _: any(each.health.is_ejected for each in endpoints(mesh)))
        assert mesh.router.counts.left_out == 0
        later = traffic(mesh, lambda so_far: so_far.calls >= 500)
        assert later.failed < 0.25 * later.calls
        broken = mesh.replicas[0].replica_id
    assert f"sending few calls to replica {broken} for 2 s" in caplog.text
    assert "leaving out" not in caplog.text


def test_errors_that_speak_of_the_request_leave_no_replica_out() -> None:
    wrong = GrpcStatusError(grpc.StatusCode.INVALID_ARGUMENT, "no such colour")
    with mesh_of(Worker(wrong), Worker(), Worker()) as mesh:
        assert traffic(mesh, lambda so_far: so_far.calls >= 300).failed > 50
        until(lambda: not mesh.router.pool.is_ticking, "the last look at the replicas")
        assert mesh.router.counts.left_out == 0
        assert [each.health.ejections for each in endpoints(mesh)] == [0, 0, 0]


def test_a_new_replica_starts_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    slower = replace(settings(), routing=replace(settings().routing, slow_start_s=3600.0))
    monkeypatch.setattr("mesh.routing.link_pool.settings", lambda: slower)
    with mesh_of(Worker(), Worker(), Worker()) as mesh:
        late = mesh.replicas.pop()
        mesh.publish()
        until(lambda: mesh.router.link_count == 2, "the link to close")
        mesh.replicas.append(late)
        mesh.publish()
        mesh.connected()
        traffic(mesh, lambda so_far: so_far.calls >= 500)
        share = late.target.calls / sum(replica.target.calls for replica in mesh.replicas)
        assert 0 < share < 0.2, "a third would be its full share"
        endpoint = mesh.endpoints[late.replica_id]
        assert 0.1 <= endpoint.weight < 0.2
        monkeypatch.undo()
        until(lambda: endpoint.weight == 1, f"its full weight after {settings().routing.slow_start_s} s")


def test_the_first_replicas_that_a_caller_knows_are_not_new() -> None:
    with mesh_of(Worker(), Worker()) as mesh:
        assert [endpoint.weight for endpoint in mesh.endpoints.values()] == [1.0, 1.0]
