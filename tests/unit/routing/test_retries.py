"""Calls that failed and are sent again: within attempts, codes, budget and deadline, to another replica."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.exceptions import DeadlineExceededError, GrpcStatusError, ReplicaUnavailableError
from mesh.routing.retry_budget import RetryBudget
from tests.unit.fakes.small_mesh import DEADLINE_S, SmallMesh, mesh_of, until

pytestmark = pytest.mark.timeout(60)
RETRY = {"attempts": 3, "codes": ["INTERNAL"]}


@given(st.floats(0.01, 1.0), st.lists(st.integers(1, 500), max_size=200))
def test_retries_are_a_share_of_the_calls_and_ten(share: float, bursts: list[int]) -> None:
    budget, calls, taken = RetryBudget(), 0, 0
    for burst in bursts:
        calls += burst
        for _ in range(burst):
            taken += budget.take(share, calls)
        assert taken <= 10 + share * calls


def test_a_quiet_time_saves_up_a_bounded_number_of_retries() -> None:
    budget = RetryBudget()
    assert sum(budget.take(0.1, 1_000_000) for _ in range(1000)) == 110


class Worker:
    """Fails its first calls."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or OSError("disk full")
        self.calls = 0
        self.released = threading.Event()

    async def work(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls

    async def items(self) -> Any:
        self.calls += 1
        raise self.error
        yield

    def block(self) -> None:
        self.calls += 1
        time.sleep(0.3)
        raise self.error

    def hold(self) -> None:
        """It lasts until the test ends it."""
        self.released.wait(DEADLINE_S)
        raise self.error


def result(mesh: SmallMesh, method: str = "work", **options: Any) -> Any:
    return mesh.handle(method, **options).remote().result(timeout_s=DEADLINE_S)


def test_a_call_that_failed_is_sent_again() -> None:
    with mesh_of(Worker(2)) as mesh:
        assert result(mesh, retry=RETRY) == 3
        assert mesh.router.counts.retries.failed == 2
        mesh.assert_idle()


def test_the_last_attempt_is_the_answer() -> None:
    with mesh_of(Worker(9)) as mesh:
        with pytest.raises(OSError, match="disk full"):
            result(mesh, retry=RETRY)
        assert mesh.replicas[0].target.calls == 3
        mesh.assert_idle()


def test_another_replica_gets_the_second_attempt() -> None:
    with mesh_of(Worker(10**6), Worker(0)) as mesh:
        for _ in range(10):
            assert result(mesh, retry={**RETRY, "attempts": 2})


@pytest.mark.parametrize(
    "options", [{}, {"idempotent": True}, {"retry": {"codes": ["UNAVAILABLE"]}}], ids=["none", "idempotent", "code"]
)
def test_other_failures_are_final(options: dict[str, Any]) -> None:
    with mesh_of(Worker(1)) as mesh:
        with pytest.raises(OSError, match="disk full"):
            result(mesh, **options)
        assert mesh.replicas[0].target.calls == 1


def test_a_status_that_user_code_set_is_retried_by_its_code() -> None:
    with mesh_of(Worker(1, GrpcStatusError(grpc.StatusCode.ABORTED, "conflict"))) as mesh:
        assert result(mesh, retry={"codes": ["ABORTED"]}) == 2


def test_a_stream_is_not_sent_again() -> None:
    with mesh_of(Worker(9)) as mesh:
        with pytest.raises(OSError, match="disk full"):
            list(mesh.handle("items", retry=RETRY, stream=True).remote())
        assert mesh.replicas[0].target.calls == 1


def test_the_budget_ends_retries_of_a_deployment_that_only_fails() -> None:
    with mesh_of(Worker(10**6)) as mesh:
        for _ in range(100):
            with pytest.raises(OSError, match="disk full"):
                result(mesh, retry={**RETRY, "budget": 0.1})
        assert mesh.router.counts.retries.failed <= 10 + 0.1 * 100


def test_retries_end_at_the_deadline() -> None:
    with mesh_of(Worker(0)) as mesh:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            result(mesh, "block", retry={**RETRY, "attempts": 9}, timeout_s=0.5)
        assert time.monotonic() - began_s < 5
        assert mesh.replicas[0].target.calls <= 2
        mesh.assert_idle()


def test_a_call_of_a_replica_that_died_is_sent_again_if_unavailable_is_a_code() -> None:
    with mesh_of(Worker(0), Worker(0)) as mesh:
        first = mesh.replicas[0]
        handles = mesh.handle("hold", retry={"codes": ["UNAVAILABLE"]}), mesh.handle("hold")
        again = [handles[0].remote() for _ in range(4)]
        once = [handles[1].remote() for _ in range(4)]
        until(lambda: sum(replica.ongoing for replica in mesh.replicas) == 8, "all to run")
        assert first.ongoing
        first.kill()
        for replica in mesh.replicas:
            replica.target.released.set()
        ends = [_end_of(response) for response in again + once]
        assert ReplicaUnavailableError not in ends[:4]
        assert ReplicaUnavailableError in ends[4:]
        mesh.replicas.remove(first)
        first.close()


def _end_of(response: Any) -> type[BaseException] | None:
    try:
        response.result(timeout_s=DEADLINE_S)
    except Exception as error:
        return type(error)
    return None
