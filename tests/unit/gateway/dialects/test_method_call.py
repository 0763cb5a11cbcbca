"""Calls of typed methods between an exchange and the mesh: messages, credit and room."""

from __future__ import annotations

import pytest

from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.served_method import ServedMethod
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import Refusal
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE, Payload, raw
from tests.unit.fakes.fake_exchange import send_body
from tests.unit.gateway.dialects.line_dialect import Scene
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    IDEMPOTENT,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    allow,
    echo,
    finish,
    item,
    routes_of,
)


def test_a_unary_call_carries_its_request_context_and_response() -> None:
    scene = Scene(UNARY, FakeRouter(echo))
    send_body(scene.exchange, scene.dialect, b"hello\n", step=1)
    assert scene.exchange.body == b"hello"
    assert scene.end.trailers == (("request_id", "r1"),)
    asked = scene.mesh_call.request
    assert (asked.method, asked.peer, asked.prefers_local, asked.is_idempotent) == (
        UNARY,
        "ipv4:10.0.0.9:9",
        True,
        False,
    )
    assert (asked.context.request_id, asked.context.app) == ("r1", "shop")
    assert scene.mesh_call.request.source == "ipv4:10.0.0.9:9", "connections take turns in the queue"
    assert ("x-tenant", "t") in asked.metadata
    assert (scene.method.stats.received, scene.method.stats.sent) == (1, 1)
    assert scene.exchange.given_room == len(b"hello\n")
    scene.assert_counted_once(0)


def test_a_call_of_an_idempotent_method_may_be_repeated() -> None:
    scene = Scene(IDEMPOTENT, FakeRouter(echo))
    send_body(scene.exchange, scene.dialect, b"hello\n")
    assert scene.mesh_call.request.is_idempotent


def test_a_message_may_name_the_model() -> None:
    """Where the method says so, and the metadata names none (item 124)."""
    for fields, model_id in (((2, 3), "m:7"), ((), "")):
        scene = Scene(UNARY, FakeRouter(echo))
        scene.method.model_id_fields = fields
        send_body(scene.exchange, scene.dialect, b"\x12\x01m\x1a\x017\n", step=2)
        assert scene.mesh_call.request.context.multiplexed_model_id == model_id


def test_a_unary_call_takes_exactly_one_message() -> None:
    for body, code in ((b"", UNIMPLEMENTED), (b"one\ntwo\n", UNIMPLEMENTED), (b"not complete", INTERNAL)):
        scene = Scene(UNARY, FakeRouter(echo))
        send_body(scene.exchange, scene.dialect, body)
        assert (scene.end.code, scene.router.calls) == (code, [])
        scene.assert_counted_once(code)


def test_a_failed_call_gives_its_status_and_trailers() -> None:
    failure = Outcome(code=5, message="none", trailers=(("x-why", b"because"), ("x-bin", b"\xff")))
    scene = Scene(UNARY, FakeRouter(lambda call: finish(call, failure)))
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert (scene.end.code, scene.end.message, scene.end.response) == (5, "none", None)
    assert scene.end.trailers == (("request_id", "r1"), ("x-why", "because"), ("x-bin", b"\xff"))
    scene.assert_counted_once(5)


def test_metadata_that_no_client_can_get_ends_the_call_with_internal() -> None:
    def bad_trailers(call: OutgoingCall) -> None:
        finish(call, Outcome(payload=raw(b"x"), trailers=(("Bad Key", b""),)))

    def bad_headers(call: OutgoingCall) -> None:
        call.sink.on_initial_metadata((("x-a", b"\n"),))

    for answer in (bad_trailers, bad_headers):
        scene = Scene(UNARY, FakeRouter(answer))
        send_body(scene.exchange, scene.dialect, b"a\n")
        assert scene.end.code == INTERNAL
        assert "User code set" in scene.end.message
        scene.assert_counted_once(INTERNAL)


def test_what_is_no_serialised_message_never_reaches_the_client() -> None:
    pickled = Payload(PICKLE, b"pickle")
    scene = Scene(UNARY, FakeRouter(lambda call: finish(call, Outcome(payload=pickled))))
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.assert_counted_once(INTERNAL)

    scene = Scene(SERVER_STREAM, FakeRouter(lambda call: call.sink.on_item(pickled)))
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert (scene.exchange.body, scene.router.cancel_reasons) == (b"", [CancelReason.CLIENT])
    scene.assert_counted_once(INTERNAL)


def test_the_replica_sends_as_much_as_the_exchange_takes() -> None:
    scene = Scene(SERVER_STREAM, FakeRouter())
    send_body(scene.exchange, scene.dialect, b"a\n")
    granted_at = settings().payload.stream_credits // 4
    for _ in range(granted_at):
        item(scene.mesh_call, b"x")
    assert scene.router.link.granted == [granted_at]
    scene.exchange.is_blocked = True
    for _ in range(2 * granted_at):
        item(scene.mesh_call, b"x")
    assert scene.router.link.granted == [granted_at]
    scene.exchange.is_blocked = False
    scene.dialect.on_writable()
    assert scene.router.link.granted == [granted_at, 2 * granted_at]
    finish(scene.mesh_call, Outcome())
    assert scene.exchange.body == b"x\n" * 3 * granted_at
    scene.assert_counted_once(0)


@pytest.mark.parametrize(("size", "counted_bytes"), [(10_000, 10_000), (100, 0)])
def test_a_large_request_counts_as_buffered_until_its_call_ends(size: int, counted_bytes: int) -> None:
    """As in gRPC: it waits here while the replicas are busy."""
    scene = Scene(UNARY, FakeRouter())
    send_body(scene.exchange, scene.dialect, b"x" * size + b"\n")
    assert scene.mesh_call.request.payload is not None
    assert scene.exchange.share.used_bytes == counted_bytes
    finish(scene.mesh_call, Outcome(payload=raw(b"ok")))
    scene.assert_counted_once(0)


def test_a_request_that_has_become_too_large_for_the_room_that_is_left_is_refused() -> None:
    scene = Scene(UNARY, FakeRouter(), budget_bytes=20_000)
    scene.dialect.call.start(bytes(15_000))
    assert scene.router.calls == []
    assert scene.end.code == RESOURCE_EXHAUSTED
    scene.assert_counted_once(RESOURCE_EXHAUSTED)


def test_the_client_sends_as_much_as_the_replica_takes() -> None:
    scene = Scene(CLIENT_STREAM, FakeRouter())
    scene.dialect.on_body(b"one\ntwo\nthr")
    assert (scene.router.link.items, scene.exchange.given_room) == ([], 0)
    allow(scene.mesh_call, 1)
    assert (scene.router.link.items, scene.exchange.given_room) == ([b"one"], 0)
    allow(scene.mesh_call, 2)
    assert (scene.router.link.items, scene.exchange.given_room) == ([b"one", b"two"], len(b"one\ntwo\nthr"))
    assert scene.exchange.share.used_bytes == len(b"thr")
    scene.dialect.on_body(b"ee\n")
    assert scene.router.link.items == [b"one", b"two", b"three"]
    scene.dialect.on_end()
    assert scene.router.link.half_closed == 1
    finish(scene.mesh_call, Outcome(payload=raw(b"sum")))
    assert scene.exchange.body == b"sum"
    scene.assert_counted_once(0)


@pytest.mark.parametrize("body", [b"", b"one\n"])
def test_the_end_of_a_request_waits_until_a_replica_has_accepted_the_call(body: bytes) -> None:
    scene = Scene(BIDI, FakeRouter())
    send_body(scene.exchange, scene.dialect, body)
    assert scene.router.link.half_closed == 0
    allow(scene.mesh_call, 8)
    assert (len(scene.router.link.items), scene.router.link.half_closed) == (body.count(b"\n"), 1)
    allow(scene.mesh_call, 8)
    assert scene.router.link.half_closed == 1


def test_a_bad_message_ends_the_call_on_both_sides() -> None:
    scene = Scene(BIDI, FakeRouter())
    allow(scene.mesh_call, 8)
    scene.dialect.on_body(b"one\n!\n")
    assert (scene.end.code, scene.end.message) == (INTERNAL, "no message")
    assert scene.router.cancel_reasons == [CancelReason.CLIENT]
    scene.assert_counted_once(INTERNAL)


def test_a_request_that_the_gateway_cannot_buffer_is_refused() -> None:
    for full_name in (UNARY, BIDI):
        scene = Scene(full_name, FakeRouter(), budget_bytes=100)
        scene.dialect.on_body(b"x" * 51)
        assert scene.end.code == RESOURCE_EXHAUSTED
        assert "MESH_GATEWAY_BUFFER_MAX_BYTES" in scene.end.message
        scene.assert_counted_once(RESOURCE_EXHAUSTED)


def test_a_response_without_room_ends_the_call() -> None:
    scene = Scene(SERVER_STREAM, FakeRouter())
    send_body(scene.exchange, scene.dialect, b"a\n")
    scene.exchange.has_room = False
    item(scene.mesh_call, b"x")
    assert scene.end.code == RESOURCE_EXHAUSTED
    assert scene.router.cancel_reasons == [CancelReason.CLIENT]
    scene.assert_counted_once(RESOURCE_EXHAUSTED)


def test_an_answer_without_any_room_breaks_the_exchange() -> None:
    scene = Scene(UNARY, FakeRouter(echo))
    scene.exchange.has_room = False
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert scene.exchange.is_aborted
    assert [end.code for end in scene.dialect.ends] == [0, RESOURCE_EXHAUSTED]
    assert "was executed" in scene.dialect.ends[1].message
    scene.assert_counted_once(RESOURCE_EXHAUSTED)


def test_initial_metadata_reaches_the_dialect() -> None:
    def answer(call: OutgoingCall) -> None:
        call.sink.on_initial_metadata((("x-a", b"1"), ("x-b-bin", b"\0")))
        echo(call)

    scene = Scene(UNARY, FakeRouter(answer))
    send_body(scene.exchange, scene.dialect, b"a\n")
    assert scene.dialect.initial == (("x-a", "1"), ("x-b-bin", b"\0"))


def test_methods_are_found_once_and_refusals_are_values() -> None:
    methods = ServedMethods(lambda *_: FakeRouter(), GrpcMetrics())
    waiting = methods.find(None, UNARY)
    assert isinstance(waiting, Refusal)
    assert waiting.code == 14
    methods.set_routes(routes_of("shop", "store"))
    first, found = methods.find(None, UNARY), methods.find("shop", UNARY)
    assert isinstance(first, ServedMethod)
    assert isinstance(found, ServedMethod)
    assert first.application == found.application == "shop"
    assert isinstance(methods.find("nothing", UNARY), Refusal)
    assert methods.find("shop", UNARY) is found
    assert (found.streams_request, found.streams_response) == (False, False)
    methods.set_routes(routes_of("store"))
    assert isinstance(methods.find("shop", UNARY), Refusal)
