"""Hedged calls: the twin goes to another replica, the first answer counts, and nothing of the other one is left."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.exceptions import GrpcStatusError, RequestCancelledError
from mesh.routing.hedging import Durations
from tests.unit.fakes.small_mesh import DEADLINE_S, SmallMesh, mesh_of, until

pytestmark = pytest.mark.timeout(60)


class Worker:
    """Answers with its name, when it may."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_stuck = False
        self.error: Exception | None = None
        self.began = 0
        self.cancelled = 0

    async def greet(self) -> str:
        return self.name

    async def work(self) -> str:
        self.began += 1
        try:
            while self.is_stuck:  # noqa: ASYNC110  # set by the thread of the test
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.name


def call(mesh: SmallMesh, hedge_after_s: float | str = 0.05, **options: Any) -> Any:
    return mesh.handle("work", idempotent=True, hedge_after_s=hedge_after_s, **options).remote()


def stick(mesh: SmallMesh) -> tuple[Worker, Worker]:
    """Let the replica that gets the next call be stuck; returns its worker and the other one."""
    workers: list[Any] = [replica.target for replica in mesh.replicas]
    for worker in workers:
        worker.is_stuck = True
    return workers[0], workers[1]


def two_copies(mesh: SmallMesh) -> tuple[Any, Worker, Worker]:
    """A call that is stuck, and so is its twin: the response, the worker of the call itself, and that of the twin."""
    workers = stick(mesh)
    response = call(mesh)
    until(lambda: all(worker.began for worker in workers), "both copies to run")
    first = response._future.call.link.replica_id
    original, other = workers if mesh.replicas[0].replica_id == first else reversed(workers)
    return response, original, other


def test_the_answer_of_another_replica_ends_a_call_that_is_stuck() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        workers = stick(mesh)
        response = call(mesh)
        until(lambda: all(worker.began == 1 for worker in workers), "the twin to run at the other replica")
        workers[1].is_stuck = False
        assert response.result(timeout_s=DEADLINE_S) == "b"
        until(lambda: workers[0].cancelled == 1 or workers[1].cancelled == 1, "the loser to be cancelled")
        assert (mesh.router.counts.hedges.sent, sum(worker.began for worker in workers)) == (1, 2)
        mesh.assert_idle()


def test_the_call_itself_may_answer_first_and_its_twin_is_cancelled() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        response, original, other = two_copies(mesh)
        original.is_stuck = False
        assert response.result(timeout_s=DEADLINE_S) == original.name
        until(lambda: other.cancelled, "the twin to be cancelled")
        assert mesh.router.counts.hedges.won == 0
        mesh.assert_idle()


def test_one_call_is_counted_however_many_copies_ran() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        workers = stick(mesh)
        response = call(mesh)
        until(lambda: all(worker.began for worker in workers), "both copies to run")
        workers[0].is_stuck = workers[1].is_stuck = False
        response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()
        assert mesh.router.counts.methods["work"].by_code == {0: 1}


def test_a_call_that_answers_in_time_has_no_twin() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        for _ in range(20):
            call(mesh, hedge_after_s=5).result(timeout_s=DEADLINE_S)
        assert mesh.router.counts.hedges.sent == 0
        mesh.assert_idle()


def test_calls_that_have_ended_are_forgotten_before_their_delay_has_passed() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        workers = stick(mesh)
        response = call(mesh, hedge_after_s=0.5)
        for _ in range(200):
            mesh.handle("greet", idempotent=True, hedge_after_s=3600).remote().result(timeout_s=DEADLINE_S)
        assert mesh.router.hedges.due < 100
        until(lambda: all(worker.began for worker in workers), "the twin of the call in flight to run")
        workers[0].is_stuck = workers[1].is_stuck = False
        response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_a_twin_never_waits_for_a_place() -> None:
    with mesh_of(Worker("a")) as mesh:
        mesh.connected()
        worker: Any = mesh.replicas[0].target
        worker.is_stuck = True
        responses = [call(mesh, hedge_after_s=0.01) for _ in range(3)]
        until(lambda: worker.began == 3, "the calls to run")
        until(lambda: mesh.router.hedges.due == 0, "the delay to pass")
        assert (mesh.router.counts.hedges.sent, mesh.router.queued) == (0, 0)
        worker.is_stuck = False
        assert [each.result(timeout_s=DEADLINE_S) for each in responses] == ["a"] * 3
        mesh.assert_idle()


def test_a_cancel_ends_both_copies() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        workers = stick(mesh)
        response = call(mesh)
        until(lambda: all(worker.began for worker in workers), "both copies to run")
        response.cancel()
        with pytest.raises(RequestCancelledError):
            response.result(timeout_s=DEADLINE_S)
        until(lambda: all(worker.cancelled for worker in workers), "both copies to be cancelled")
        mesh.assert_idle()


def test_a_failure_of_user_code_is_the_answer() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        response, original, _ = two_copies(mesh)
        original.error = OSError("disk full")
        original.is_stuck = False
        with pytest.raises(OSError, match="disk full"):
            response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_a_twin_that_fails_is_forgotten() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        response, original, other = two_copies(mesh)
        other.error = OSError("disk full")
        other.is_stuck = False
        until(lambda: sum(replica.ongoing for replica in mesh.replicas) == 1, "the twin to end")
        original.is_stuck = False
        assert response.result(timeout_s=DEADLINE_S) == original.name
        mesh.assert_idle()


@pytest.mark.parametrize("is_twin_well", [True, False])
def test_a_call_that_is_unavailable_waits_for_its_twin(is_twin_well: bool) -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        response, original, other = two_copies(mesh)
        original.error = GrpcStatusError(grpc.StatusCode.UNAVAILABLE, "the database is away")
        original.is_stuck = False
        until(lambda: sum(replica.ongoing for replica in mesh.replicas) == 1, "the original to end")
        if not is_twin_well:
            other.error = OSError("disk full")
        other.is_stuck = False
        if is_twin_well:
            assert response.result(timeout_s=DEADLINE_S) == other.name
        else:
            with pytest.raises(GrpcStatusError, match="the database is away"):
                response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


def test_the_budget_bounds_twins() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        workers = stick(mesh)
        responses = [call(mesh, hedge_after_s=0.02) for _ in range(60)]
        until(lambda: sum(worker.began for worker in workers) >= 60, "the calls to run")
        until(lambda: mesh.router.hedges.due == 0, "the delay to pass")
        for worker in workers:
            worker.is_stuck = False
        for response in responses:
            response.result(timeout_s=DEADLINE_S)
        assert 10 <= mesh.router.counts.hedges.sent <= 10 + 0.1 * 200
        mesh.assert_idle()


def test_a_percentile_needs_samples_first() -> None:
    with mesh_of(Worker("a"), Worker("b")) as mesh:
        mesh.connected()
        for _ in range(20):
            call(mesh, hedge_after_s="p95").result(timeout_s=DEADLINE_S)
        workers = stick(mesh)
        response = call(mesh, hedge_after_s="p95")
        until(lambda: all(worker.began for worker in workers) and mesh.router.counts.hedges.sent, "a twin to be sent")
        workers[0].is_stuck = workers[1].is_stuck = False
        response.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()


@given(st.lists(st.floats(0.001, 10), max_size=400), st.integers(1, 99))
def test_a_percentile_is_one_of_the_latest_durations(seconds: list[float], percent: int) -> None:
    durations = Durations()
    for each in seconds:
        durations.add(each)
    value = durations.percentile(percent)
    if len(seconds) < 20:
        assert value == math.inf
    else:
        assert value in seconds[-256 - 32 :]
        assert durations.percentile(1) <= value <= durations.percentile(99)


@pytest.mark.parametrize("wrong", ["95", "p0", "p100", "fast", 0, -1, True, [1]])
def test_wrong_delays_are_refused(wrong: Any) -> None:
    with mesh_of(Worker("a")) as mesh, pytest.raises((TypeError, ValueError), match="hedge_after_s"):
        mesh.handle("work", idempotent=True, hedge_after_s=wrong)


def test_hedges_need_idempotent_calls() -> None:
    with mesh_of(Worker("a")) as mesh, pytest.raises(ValueError, match="idempotent=True"):
        mesh.handle("work", hedge_after_s=1.0)
