"""Web calls over a real link: one frame each way, flow control, cancels, deadlines and the limit of a replica."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.replica.user_loop import UserLoop
from mesh.settings import settings
from mesh.web.plain_service import PlainService
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import RAW, Payload
from mesh.wire.request_context import RequestContext
from mesh.wire.web_messages import WEB_METHOD, decode_response
from tests.unit.fakes.small_mesh import TOKEN, SmallMesh, SmallReplica, do_on_io, until
from tests.unit.web.web_calls import web_request

PIECE = bytes(range(256)) * 256
TOTAL_PIECES = 1024
"""64 MiB."""
LIMIT = 2


async def answer(request: Request) -> Any:
    match request.url.path:
        case "/hang":
            await asyncio.Event().wait()
        case "/digest":
            digest = hashlib.sha256()
            async for piece in request.stream():
                digest.update(piece)
            return digest.hexdigest()
        case "/pieces":
            return StreamingResponse(pieces())
        case "/large":
            return b"x" * 3_000_000
    return "ok"


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(TOTAL_PIECES):
        yield PIECE


def service(user_loop: UserLoop) -> PlainService:
    return PlainService(answer, lambda: user_loop.threads, is_async=True)


@pytest.fixture(scope="module")
def mesh() -> Iterator[SmallMesh]:
    with patch("mesh.wire.mesh_token._token", TOKEN):
        mesh = SmallMesh((SmallReplica(answer, LIMIT, web=service),))
        try:
            yield mesh.connected()
        finally:
            mesh.close()


class Sink:
    """A gateway that takes what comes, or waits."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.call: OutgoingCall | None = None
        self.items: list[Payload] = []
        self.received_bytes = 0
        self.digest = hashlib.sha256()
        self.outcome: Outcome | None = None
        self.upload: Iterator[bytes] | None = None
        self.sent_bytes = 0

    def on_item(self, payload: Payload) -> None:
        assert payload.codec == RAW
        if not self.received_bytes:
            self.items.append(payload)
        else:
            self.digest.update(payload.data)
        self.received_bytes += len(payload.data)
        if self.takes:
            assert self.call is not None
            self.call.grant(payload.credits)

    def on_credit(self) -> None:
        call = self.call
        assert call is not None
        while self.upload is not None and call.request_credit > 0:
            data = next(self.upload, None)
            if data is None:
                self.upload = None
                call.half_close()
                return
            self.sent_bytes += len(data)
            call.send_item(Payload(RAW, data))

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...

    def on_done(self, outcome: Outcome) -> None:
        self.outcome = outcome


def submitted(
    mesh: SmallMesh, path: str, sink: Sink, upload: Iterator[bytes] | None = None, timeout_s: float | None = None
) -> Sink:
    data = web_request(path, "POST").SerializeToString()
    deadline_at_s = None if timeout_s is None else time.monotonic() + timeout_s
    payload = None if upload is not None else Payload(RAW, data)
    request = CallRequest(
        WEB_METHOD,
        payload,
        RequestContext("request-1", route="/shop"),
        deadline_at_s,
        upload is not None,
        streams_response=True,
    )
    sink.call = OutgoingCall(request, sink)
    if upload is not None:
        sink.upload = _chained(data, upload)
    io_thread().call(mesh.router.submit, sink.call)
    return sink


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def ended(sink: Sink) -> Outcome:
    until(lambda: sink.outcome is not None, "the end of the call")
    assert sink.outcome is not None
    return sink.outcome


def test_a_small_request_is_one_frame_each_way(mesh: SmallMesh) -> None:
    sink = submitted(mesh, "/", Sink())
    outcome = ended(sink)
    assert not sink.received_bytes
    assert outcome.payload is not None
    response = decode_response(bytes(outcome.payload.data))
    assert (response.status, response.body) == (200, b"ok")


def test_a_large_body_in_one_piece_arrives_in_pieces(mesh: SmallMesh) -> None:
    sink = submitted(mesh, "/large", Sink())
    assert ended(sink).is_ok
    first = decode_response(bytes(sink.items[0].data))
    assert len(first.body) + sink.received_bytes - len(sink.items[0].data) == 3_000_000


def test_a_download_is_at_most_a_window_ahead_of_its_client(mesh: SmallMesh) -> None:
    window_bytes = settings().payload.stream_credits * 64 * 1024
    sink = submitted(mesh, "/pieces", Sink(takes=False))
    credits = settings().payload.stream_credits

    def is_stalled() -> bool:
        return sum(1 for _ in sink.items) > 0 and sink.received_bytes >= (credits // 2 - 1) * len(PIECE)

    until(is_stalled, "the window to fill")
    assert sink.received_bytes <= window_bytes + len(PIECE)
    assert sink.outcome is None
    sink.takes = True
    assert sink.call is not None
    do_on_io(sink.call.grant, credits)
    assert ended(sink).is_ok
    first = decode_response(bytes(sink.items[0].data))
    assert sink.received_bytes - len(sink.items[0].data) + len(first.body) == TOTAL_PIECES * len(PIECE)


def test_an_upload_arrives_whole(mesh: SmallMesh) -> None:
    expected = hashlib.sha256(PIECE * TOTAL_PIECES).hexdigest()
    sink = submitted(mesh, "/digest", Sink(), upload=(PIECE for _ in range(TOTAL_PIECES)))
    outcome = ended(sink)
    assert outcome.payload is not None
    assert decode_response(bytes(outcome.payload.data)).body == expected.encode()
    assert sink.sent_bytes >= TOTAL_PIECES * len(PIECE)


def test_a_client_that_leaves_gives_the_place_back(mesh: SmallMesh) -> None:
    """The limit of the replica holds for web calls as for others (item 146)."""
    hanging = [submitted(mesh, "/hang", Sink()) for _ in range(LIMIT)]
    until(lambda: mesh.replicas[0].ongoing == LIMIT, "all places to be taken")
    waiting = submitted(mesh, "/", Sink())
    until(lambda: mesh.router.queued == 1, "a call in the queue")
    for sink in hanging:
        assert sink.call is not None
        do_on_io(mesh.router.cancel, sink.call, CancelReason.CLIENT)
    assert ended(waiting).is_ok
    mesh.assert_idle()


def test_a_deadline_ends_a_request(mesh: SmallMesh) -> None:
    outcome = ended(submitted(mesh, "/hang", Sink(), timeout_s=0.05))
    assert outcome.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    mesh.assert_idle()


def test_the_access_log_names_method_and_route(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    """Of a web request, which has no method of the deployment (item 210)."""
    executor = mesh.replicas[0].executor
    do_on_io(executor.log_accesses, True)
    with caplog.at_level(logging.INFO, "mesh.access"):
        assert ended(submitted(mesh, "/", Sink())).is_ok
        ended(submitted(mesh, "/hang", Sink(), timeout_s=1.0))
        until(lambda: len(caplog.records) == 2, "the records")
    do_on_io(executor.log_accesses, False)
    logged = [record.getMessage().rsplit(" ", 2)[0] for record in caplog.records]
    assert logged == ["POST /shop OK", "POST /shop DEADLINE_EXCEEDED"]
    assert {vars(record)["route"] for record in caplog.records} == {"/shop"}


def test_a_deployment_without_web_service_says_so() -> None:
    with patch("mesh.wire.mesh_token._token", TOKEN):
        mesh = SmallMesh((SmallReplica(answer, LIMIT),))
        try:
            outcome = ended(submitted(mesh.connected(), "/", Sink()))
            assert "takes no web requests" in outcome.message
        finally:
            mesh.close()
