"""WebSockets in ASGI applications: messages, closing by either side, and what ends without a word (item 111)."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import mesh
from mesh.context import current_request
from mesh.defaults.data_path_settings import ReplicaSettings
from mesh.settings import Settings
from mesh.wire.web_messages import encode_close, encode_message, header_pairs
from tests.unit.fakes.small_mesh import until
from tests.unit.web.web_calls import WebCall, WebReplica, web_replica

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]


class Seen:
    """What happened in user code. It is found by its module, so it is not a part of the pickles."""

    events: list[Any] = []  # noqa: RUF012


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Seen.events.clear()


def note(event: Any) -> None:
    from tests.unit.web import test_asgi_websocket

    test_asgi_websocket.Seen.events.append(event)


async def echo(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(offered[0] if offered else None, [(b"x-greeting", b"hi")])
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                note((message["code"], message["reason"]))
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    finally:
        note("ended")


async def close(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4000, "enough")


async def forbid(websocket: WebSocket) -> None:
    await websocket.close()


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("pay first", 402, {"x-why": "money"}))


async def leave_open(websocket: WebSocket) -> None:
    await websocket.accept()


async def silent(websocket: WebSocket) -> None:
    """Neither accepts nor refuses."""


async def broken(websocket: WebSocket) -> None:
    await websocket.accept()
    raise ValueError("no such number")


async def ticks(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.001)
    except WebSocketDisconnect as gone:
        note(gone.code)


async def hang(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("cancelled")
        raise


async def close_late(websocket: WebSocket) -> None:
    """Says goodbye to a client that has left, and does not mind."""
    await websocket.accept()
    request = current_request()
    while request is not None and not request.is_cancelled:
        await websocket.send_text("tick")
        await asyncio.sleep(0.001)
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.close()


ENDPOINTS = (echo, close, forbid, deny, leave_open, silent, broken, ticks, hang, close_late)
App = mesh.ingress(Starlette(routes=[WebSocketRoute(f"/{each.__name__}", each) for each in ENDPOINTS]))()


@pytest.fixture(scope="module")
def replica() -> Iterator[WebReplica]:
    with web_replica(App) as replica:
        yield replica


def kinds(call: WebCall) -> list[str | None]:
    return [event.WhichOneof("kind") for event in call.events()]


def test_texts_and_binaries_go_both_ways(replica: WebReplica) -> None:
    """Empty ones and large ones too (item 111)."""
    call = replica.connect("/echo", subprotocols=["chat", "other"])
    messages: list[str | bytes] = ["grüße", b"\x00\xff", "", b"", "x" * 1_000_000]
    for message in messages:
        call.push(encode_message(message))
    accept, *echoes = call.wait_items(1 + len(messages)) and call.events()
    assert (accept.accept.subprotocol, header_pairs(accept.accept.headers)) == ("chat", [(b"x-greeting", b"hi")])
    assert [event.text if event.WhichOneof("kind") == "text" else event.binary for event in echoes] == messages
    call.push(encode_close(1000))
    call.half_close()
    assert call.ended().is_ok


def test_a_client_closes_with_a_code_and_a_reason(replica: WebReplica) -> None:
    """The application learns both (item 111)."""
    call = replica.connect("/echo")
    call.push(encode_close(4001, "bye"))
    call.half_close()
    assert call.ended().is_ok
    assert Seen.events == [(4001, "bye"), "ended"]
    assert kinds(call) == ["accept"]


def test_a_connection_that_breaks_is_a_disconnect(replica: WebReplica) -> None:
    """With the code that RFC 6455 has for it (item 111)."""
    call = replica.connect("/echo")
    call.wait_items(1)
    call.half_close()
    call.ended()
    assert Seen.events == [(1006, ""), "ended"]


def test_an_application_closes_with_a_code_and_a_reason(replica: WebReplica) -> None:
    """The client learns both (item 111)."""
    call = replica.connect("/close")
    assert call.ended().is_ok
    assert kinds(call) == ["accept", "close"]
    assert (call.events()[1].close.code, call.events()[1].close.reason) == (4000, "enough")


def test_an_application_refuses_a_handshake(replica: WebReplica) -> None:
    """With a close, or with a response of its own (item 111)."""
    call = replica.connect("/forbid")
    assert call.ended().is_ok
    assert kinds(call) == ["close"]
    call = replica.connect("/deny")
    assert call.ended().is_ok
    (event,) = call.events()
    assert (event.deny.status, event.deny.body) == (402, b"pay first")
    assert (b"x-why", b"money") in header_pairs(event.deny.headers)


def test_what_an_application_leaves_open_is_closed(replica: WebReplica) -> None:
    call = replica.connect("/leave_open")
    assert call.ended().is_ok
    assert call.events()[-1].close.code == 1000


@pytest.mark.parametrize(("path", "sent"), [("/silent", []), ("/broken", ["accept"])])
def test_an_application_that_fails_ends_its_call_with_a_status(replica: WebReplica, path: str, sent: list[str]) -> None:
    """The gateway answers the handshake, or closes with 1011."""
    call = replica.connect(path)
    assert call.ended().code == INTERNAL
    assert kinds(call) == sent


def test_an_application_that_only_sends_notices_that_its_client_has_left(replica: WebReplica) -> None:
    call = replica.connect("/ticks")
    call.wait_items(3)
    call.leave()
    assert call.ended() is not None
    assert Seen.events == [1006]


def test_an_application_that_closes_when_its_client_has_left_gives_its_place_back(replica: WebReplica) -> None:
    """Its code has nothing to say about that: the framework raised, and it went on."""
    call = replica.connect("/close_late")
    call.wait_items(1)
    call.leave()
    assert call.ended().code == CANCELLED
    until(lambda: not call.answers.has_place, "the end of its place")


def test_an_application_that_waits_for_messages_gets_a_disconnect(replica: WebReplica) -> None:
    call = replica.connect("/echo")
    call.wait_items(1)
    call.leave()
    assert call.ended() is not None
    assert Seen.events == [(1006, ""), "ended"]


def test_an_application_that_notices_nothing_is_cancelled(replica: WebReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Settings(replica=ReplicaSettings(websocket_grace_s=0.01))
    monkeypatch.setattr("mesh.replica.web_execution.settings", lambda: short)
    call = replica.connect("/hang")
    call.wait_items(1)
    call.leave()
    assert call.ended() is not None
    until(lambda: Seen.events == ["cancelled"], "the cancellation")


def test_an_application_that_has_had_its_disconnect_is_cancelled_at_once(replica: WebReplica) -> None:
    """The gateway cancels when it has waited long enough after the close."""
    call = replica.connect("/hang")
    call.wait_items(1)
    call.push(encode_close(1000))
    call.half_close()
    call.leave()
    assert call.ended() is not None
    assert Seen.events == ["cancelled"]


def test_a_websocket_holds_its_place_until_it_ends(replica: WebReplica) -> None:
    call = replica.connect("/echo")
    call.wait_items(1)
    assert call.answers.has_place
    call.half_close()
    call.ended()
    assert not call.answers.has_place
