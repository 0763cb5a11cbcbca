"""mesh.replica.failure_log: what user code raised is logged once, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    GrpcStatusError,
    RemoteError,
    ReplicaUnavailableError,
    RequestCancelledError,
    UnserializableError,
)
from mesh.replica.failure_log import FailureLog
from mesh.settings import settings
from mesh.wire.outcome import failed_in_user_code, to_exception
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until

DEADLINE_S = 30.0


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def now_s() -> list[float]:
    return [0.0]


@pytest.fixture
def log(now_s: list[float]) -> FailureLog:
    return FailureLog(lambda: now_s[0])


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_failure_is_one_record_with_method_request_and_traceback(
    log: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError("boom\nasked for")
    except ValueError as error:
        log.record("/shop.Shop/Buy", "r1", error)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "/shop.Shop/Buy failed: ValueError: boom")
    assert record.__dict__["request_id"] == "r1"
    assert "raise ValueError" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        GrpcStatusError(grpc.StatusCode.NOT_FOUND, "no such item"),
        RequestCancelledError(reason=CancelReason.CLIENT),
        DeadlineExceededError(),
        BackPressureError(num_queued_requests=1, max_queued_requests=1),
    ],
)
def test_answers_are_not_logged(log: FailureLog, caplog: pytest.LogCaptureFixture, answer: Exception) -> None:
    log.record("buy", "r1", answer)
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (to_exception(failed_in_user_code(ValueError("no tax"))), "ValueError: no tax"),
        (RemoteError("OddError", "no tax", "Traceback ..."), "RemoteError: OddError: no tax"),
        (ReplicaUnavailableError("a1"), "ReplicaUnavailableError: Replica a1 is unavailable"),
    ],
)
def test_what_another_deployment_raised_is_a_warning_of_one_line(
    log: FailureLog, caplog: pytest.LogCaptureFixture, error: BaseException, text: str
) -> None:
    log.record("buy", "r1", error)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is None
    assert record.getMessage().startswith(f"buy failed in a call that it made: {text}")
    assert record.__dict__["request_id"] == "r1"


def test_an_error_that_was_made_of_a_remote_one_is_logged_in_full(
    log: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    remote = to_exception(failed_in_user_code(ValueError("no tax")))
    error = LookupError("no price")
    error.__cause__ = remote
    log.record("buy", "r1", error)
    assert caplog.records[0].levelname == "ERROR"
    assert "no tax" in caplog.text


def test_an_exception_without_words_is_logged_by_its_name(log: FailureLog, caplog: pytest.LogCaptureFixture) -> None:
    log.record("buy", "r1", MuteError())
    assert messages(caplog) == ["buy failed: MuteError"]


def test_a_log_that_fails_harms_no_call(log: FailureLog, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def broken(record: logging.LogRecord) -> bool:
        seen.append(record.getMessage())
        raise SystemExit(1)

    logging.getLogger("mesh").addFilter(broken)
    try:
        log.record("buy", "r1", ValueError("boom"))
    finally:
        logging.getLogger("mesh").removeFilter(broken)
    assert seen == ["buy failed: ValueError: boom"]


def test_a_flood_is_cut_and_counted(log: FailureLog, now_s: list[float], caplog: pytest.LogCaptureFixture) -> None:
    most = settings().logs.failures_max
    for number in range(most + 90):
        log.record("buy", f"r{number}", ValueError("boom"))
    log.record("buy", "another kind", TypeError("boom"))
    assert len(caplog.records) == most + 1
    assert "More failures of this kind are not logged" in messages(caplog)[most - 1]
    now_s[0] += 10.0
    caplog.clear()
    log.record("buy", "r1", ValueError("boom"))
    assert messages(caplog) == ["90 more failed calls were not logged", "buy failed: ValueError: boom"]


class Shop:
    """Fails in every way a method can."""

    def __init__(self) -> None:
        self.is_called = False

    async def raises(self) -> None:
        raise ValueError("boom")

    def raises_in_thread(self) -> None:
        raise ValueError("boom")

    async def streams(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("boom")

    def streams_in_thread(self) -> Iterator[int]:
        yield 1
        raise ValueError("boom")

    async def exits(self) -> None:
        raise SystemExit(3)

    async def unpicklable(self) -> Any:
        return threading.Lock()

    @property
    def refused(self) -> Callable[[], None]:
        raise ValueError("boom")

    async def fails_when_cancelled(self) -> None:
        self.is_called = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("boom") from None

    async def aborts(self) -> None:
        raise GrpcStatusError(grpc.StatusCode.NOT_FOUND)


@pytest.fixture
def mesh() -> Iterator[SmallMesh]:
    with mesh_of(Shop()) as mesh:
        yield mesh


@pytest.mark.parametrize("method", ["raises", "raises_in_thread", "refused"])
def test_a_call_that_raises_is_logged_once(mesh: SmallMesh, caplog: pytest.LogCaptureFixture, method: str) -> None:
    with pytest.raises(ValueError, match="boom"):
        mesh.handle(method).remote().result(timeout_s=DEADLINE_S)
    (record,) = caplog.records
    assert record.getMessage() == f"{method} failed: ValueError: boom"
    assert record.__dict__["request_id"]
    assert f"in {method}" in caplog.text


@pytest.mark.parametrize("method", ["streams", "streams_in_thread"])
def test_a_stream_that_breaks_off_is_logged_once(
    mesh: SmallMesh, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with pytest.raises(ValueError, match="boom"):
        list(mesh.handle(method, stream=True).remote())
    assert messages(caplog) == [f"{method} failed: ValueError: boom"]


def test_a_call_that_exits_or_cannot_be_answered_is_logged(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RemoteError):
        mesh.handle("exits").remote().result(timeout_s=DEADLINE_S)
    with pytest.raises((UnserializableError, TypeError)):
        mesh.handle("unpicklable").remote().result(timeout_s=DEADLINE_S)
    assert [message.partition(":")[0] for message in messages(caplog)] == ["exits failed", "unpicklable failed"]


def test_a_cancelled_call_is_not_logged_whatever_it_raises(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    response = mesh.handle("fails_when_cancelled").remote()
    until(lambda: mesh.replicas[0].target.is_called, "the call")
    response.cancel()
    mesh.assert_idle()
    assert not caplog.records


def test_a_status_that_user_code_chose_is_not_logged(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GrpcStatusError):
        mesh.handle("aborts").remote().result(timeout_s=DEADLINE_S)
    assert not caplog.records
