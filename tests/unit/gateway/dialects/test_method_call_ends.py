"""How calls of typed methods end: failures of a dialect, clients that leave, deadlines."""

from __future__ import annotations

import time

import pytest

from gateway.dialects.method_call import CallEnd
from mesh.exceptions import CancelReason, DeadlineExceededError
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.rpc.status_codes import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED
from mesh.wire.outcome import failed, failed_in_user_code
from tests.unit.fakes.fake_exchange import send_body
from tests.unit.gateway.dialects.line_dialect import LineDialect, Scene
from tests.unit.gateway.fakes import SERVER_STREAM, UNARY, FakeRouter, echo, finish, item


class FailingDialect(LineDialect):
    """Fails with every message, and with the first `bad_ends` ends."""

    bad_ends = 1

    def on_message(self, message: bytes | memoryview) -> bool:
        raise RuntimeError("a fault of ours")

    def on_status(self, end: CallEnd) -> int | None:
        if len(self.ends) < self.bad_ends:
            self.ends.append(end)
            raise RuntimeError("a fault of ours")
        return super().on_status(end)


def failing_scene(monkeypatch: pytest.MonkeyPatch, full_name: str, router: FakeRouter, bad_ends: int) -> Scene:
    monkeypatch.setattr(FailingDialect, "bad_ends", bad_ends)
    return Scene(full_name, router, dialect=FailingDialect)


def test_an_end_that_cannot_be_translated_becomes_internal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = failing_scene(monkeypatch, UNARY, FakeRouter(echo), bad_ends=1)
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert [end.code for end in scene.dialect.ends] == [0, INTERNAL]
    assert "was executed" in scene.dialect.ends[1].message
    assert scene.exchange.status == 500
    scene.assert_counted_once(INTERNAL)
    assert caplog.text.count("RuntimeError: a fault of ours") == 1


def test_a_call_that_cannot_be_answered_at_all_breaks_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = failing_scene(monkeypatch, UNARY, FakeRouter(echo), bad_ends=2)
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert scene.exchange.is_aborted
    scene.assert_counted_once(INTERNAL)


def test_a_message_that_cannot_be_translated_ends_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = failing_scene(monkeypatch, SERVER_STREAM, FakeRouter(), bad_ends=0)
    send_body(scene.exchange, scene.dialect, b"a\n")
    item(scene.mesh_call, b"x")
    assert scene.end.code == INTERNAL
    assert scene.router.cancel_reasons == [CancelReason.CLIENT]
    scene.assert_counted_once(INTERNAL)
    assert caplog.text.count("RuntimeError: a fault of ours") == 1


class BreakingDialect(LineDialect):
    """Its exchange breaks when it is to be answered, as a WebSocket without room for that does."""

    def on_status(self, end: CallEnd) -> int | None:
        self.exchange.abort()
        self.on_broken(None)
        return end.code


def test_a_call_whose_refusal_breaks_its_exchange_is_cancelled_and_counted_once() -> None:
    scene = Scene(SERVER_STREAM, FakeRouter(), dialect=BreakingDialect)
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.exchange.has_room = False
    item(scene.mesh_call, b"x")
    assert scene.mesh_call in scene.router.cancelled
    scene.assert_counted_once(RESOURCE_EXHAUSTED)


def test_a_client_that_leaves_cancels_the_call() -> None:
    scene = Scene(UNARY, FakeRouter())
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.leave()
    assert (scene.router.cancel_reasons, scene.dialect.ends) == ([CancelReason.CLIENT], [])
    scene.assert_counted_once(CANCELLED)


def test_a_client_that_leaves_before_its_request_is_complete_is_counted() -> None:
    scene = Scene(UNARY, FakeRouter())
    scene.dialect.on_body(b"a")
    assert scene.exchange.share.used_bytes == 1
    scene.leave()
    assert scene.router.calls == []
    scene.assert_counted_once(CANCELLED)


def test_a_client_that_leaves_at_its_deadline_counts_as_late() -> None:
    scene = Scene(UNARY, FakeRouter(), timeout_s=0.004)
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.leave()
    assert scene.router.cancel_reasons == [CancelReason.DEADLINE]
    scene.assert_counted_once(DEADLINE_EXCEEDED)


def test_the_deadline_is_the_earlier_of_the_clients_and_the_gateways() -> None:
    now_s = time.monotonic()
    scene = Scene(UNARY, FakeRouter(), timeout_s=60)
    send_body(scene.exchange, scene.dialect, b"a\n")
    deadline_at_s = scene.mesh_call.request.deadline_at_s
    assert deadline_at_s is not None
    assert 59 < deadline_at_s - now_s < 90


@pytest.mark.parametrize(("client_s", "says_timeout"), [(None, True), (60, True), (2, False)])
def test_the_gateways_own_limit_is_named_in_every_dialect(client_s: float | None, says_timeout: bool) -> None:
    """A client's own deadline keeps its text (D10)."""
    router = FakeRouter(lambda call: finish(call, failed(DeadlineExceededError())))
    scene = Scene(UNARY, router, timeout_s=client_s, own_timeout_s=5)
    send_body(scene.exchange, scene.dialect, b"a\n")
    [end] = scene.dialect.ends
    assert (end.message == "Request r1 timed out after 5s.") is says_timeout
    scene.assert_counted_once(DEADLINE_EXCEEDED)


@pytest.mark.parametrize(("early_s", "says_timeout"), [(0.025, True), (0.1, False)])
def test_a_nested_call_that_fails_at_the_very_end_is_the_timeout_in_every_dialect(
    early_s: float, says_timeout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the deadline of its request, and one that is queued fails a moment before it (D10)."""
    now_s = time.monotonic()
    for module in ("method_call", "served_method"):
        monkeypatch.setattr(f"gateway.dialects.{module}.monotonic", lambda: now_s)
    router = FakeRouter()
    scene = Scene(UNARY, router, own_timeout_s=3600)
    send_body(scene.exchange, scene.dialect, b"a\n")
    now_s += 3600 - early_s
    with pytest.raises(DeadlineExceededError) as nested:
        raise DeadlineExceededError("it waited for a free place of shop/Stock")
    finish(scene.mesh_call, failed_in_user_code(nested.value))
    [end] = scene.dialect.ends
    assert (end.message == "Request r1 timed out after 3600s.") is says_timeout
    scene.assert_counted_once(DEADLINE_EXCEEDED)


def test_a_client_that_leaves_behind_the_answer_changes_nothing() -> None:
    scene = Scene(UNARY, FakeRouter(echo))
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.dialect.on_broken(None)
    scene.assert_counted_once(0)
    scene = Scene(UNARY, FakeRouter(echo))
    scene.dialect.on_body(b"!\n")
    scene.dialect.on_broken(None)
    scene.assert_counted_once(INTERNAL)


def test_a_router_that_fails_ends_the_call() -> None:
    def fail(call: OutgoingCall) -> None:
        call.state = CallState.QUEUED
        raise RuntimeError("broken")

    scene = Scene(UNARY, FakeRouter(fail))
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.assert_counted_once(INTERNAL)
