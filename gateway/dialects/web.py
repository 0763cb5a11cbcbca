"""Web requests: HTTP requests that go to the ASGI application or the `__call__` of an application's ingress deployment.

There is one object per request: the receiver of its exchange and the sink of its call. A request that is complete when
it leaves, and an answer of one piece, are one frame each and need no task, future or timer. All others are streams with
flow control from end to end: the client's room is given back when the replica has granted credit for what came, and
credit for a piece of the answer is granted again when the client's connection has taken it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from time import monotonic

from google.protobuf.message import DecodeError

from gateway.dialects.served_method import COUNTED_MIN_BYTES
from gateway.dialects.web_bodies import HeldBody, WebDownload, WebUpload
from gateway.dialects.web_target import RoutedHead, WebTarget, WebTargets, body_max_bytes
from gateway.ops.web_access_log import log_web_access
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, HttpHead
from gateway.requests.web_encoding import WebAnswer, read_response
from gateway.requests.web_status import (
    CLIENT_LEFT,
    INTERNAL,
    INTERNAL_ERROR,
    NO_ROOM,
    STATUS_WHEN_BROKEN,
    WebFailure,
    failure_of,
    send_failure,
    timed_out,
    too_large,
)
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall, grant_at, nested_lead_s
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import RAW, Payload, raw
from mesh.wire.web_messages import REQUEST, WEB_METHOD

logger = logging.getLogger("mesh.gateway")

SMALL_BODY_MAX_BYTES = 64 * 1024 - 1
"""A request body of known length up to this is sent in one frame with its head, once all of it is here.

Clients may send as much without being given more room."""


class WebDialect:
    """Claims every request: it comes last in the list of dialects."""

    def __init__(self, targets: WebTargets, new_call: NewWebCall | None = None) -> None:
        """`new_call` makes the calls; None: as a plain WebCall."""
        self._targets = targets
        self._new_call = new_call or WebCall

    def claims(self, head: HttpHead) -> bool:
        return True

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a request; None if it is answered already."""
        routed = self._targets.routed(exchange)
        if routed is None:
            return None
        target = self._targets.admit(routed.target, exchange)
        if isinstance(target, WebFailure):
            self._targets.refuse(exchange, target, routed.headers, routed.target)
            return None
        call = self._new_call(exchange, target, routed)
        call.begin()
        return None if exchange.has_ended else call


class WebCall:
    """The life of a web request."""

    __slots__ = (
        "_body",
        "_call",
        "_context",
        "_download",
        "_exchange",
        "_routed",
        "_started_at_s",
        "_status",
        "_target",
        "_upload",
    )

    def __init__(self, exchange: Exchange, target: WebTarget, routed: RoutedHead) -> None:
        """`target`: that of the head, with its caller."""
        self._exchange = exchange
        self._target = target
        self._routed = routed
        self._context = target.context_of(exchange.head, routed.headers, routed.model_id)
        self._started_at_s = monotonic()
        self._call: OutgoingCall | None = None
        self._body: HeldBody | None = None
        """Received, and its room not given back to the client, or sent in one frame; made with the first piece."""
        self._upload: WebUpload | None = None
        self._download: WebDownload | None = None
        self._status = 0
        """With which the request has ended here while the mesh still has its call."""
        target.in_flight.enter()

    def begin(self) -> None:
        """Start the call of a request whose body passes in pieces. Any other starts when it is complete."""
        head = self._exchange.head
        if head.has_body and (head.content_length is None or head.content_length > SMALL_BODY_MAX_BYTES):
            self._upload = WebUpload(self._encoded(b""))
            self._submit(None)

    # ---- From the client (ExchangeReceiver) --------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._target.stats.received_bytes += len(data)
        upload, body = self._upload, self._body
        if body is None:
            body = self._body = HeldBody(self._exchange.share)
        if not body.hold(len(data)):
            self._fail(NO_ROOM)
        elif upload is None:
            body.whole += data
        elif not upload.add(data, body_max_bytes()):
            self._fail(too_large(body_max_bytes()))
        else:
            self._forward()

    def on_end(self) -> None:
        if self._upload is None:
            body = self._body
            self._submit(self._encoded(b"" if body is None else body.whole))
            if body is not None and body.size <= COUNTED_MIN_BYTES:
                body.release()
            elif body is not None:
                body.whole = b""
            return
        self._upload.is_complete = True
        self._forward()

    def on_broken(self, by: BrokenBy) -> None:
        self._status = STATUS_WHEN_BROKEN[by]
        call = self._call
        if call is None:
            self._count(self._status)
        elif self._may_go_on and by is not BrokenBy.DRAIN:
            self._grant()
        else:
            self._target.router.cancel(call, CancelReason.DRAIN if by is BrokenBy.DRAIN else CancelReason.CLIENT)

    def on_writable(self) -> None:
        self._grant()

    # ---- From the mesh (CallSink) ------------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        """The head of the answer, then pieces of its body."""
        if self._call is None:
            return
        if self._exchange.has_ended:
            # The client has left. The rest is read and dropped, so that the application can finish.
            self._download = self._download or WebDownload(CLIENT_LEFT, "", None, has_body=False)
        elif self._download is None:
            self._begin_answer(payload)
        elif payload.codec == RAW:
            self._send_piece(payload.data)
        else:
            self._fail(INTERNAL)
        download = self._download
        if download is not None:
            download.written += payload.credits
            if download.written >= grant_at() and (self._exchange.has_ended or not self._exchange.is_blocked):
                self._grant()

    def on_credit(self) -> None:
        self._forward()

    def on_initial_metadata(self, entries: Trailers) -> None:
        """Only of gRPC methods."""

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        """Only of gRPC methods."""

    def on_done(self, outcome: Outcome) -> None:
        """The call has ended on the mesh."""
        self._call = None
        exchange, download = self._exchange, self._download
        if exchange.has_ended:
            self._count(self._status or CLIENT_LEFT)
        elif not outcome.is_ok:
            self._fail(self._timed_out() or failure_of(outcome, self._context.request_id, self._routed.timeout_s))
        elif download is None:
            self._send_whole(outcome.payload)
        elif download.left_bytes:
            self._fail(INTERNAL)
        else:
            exchange.end()
            self._count(download.status)

    # ---- The request -------------------------------------------------------------------------------------------------

    def _encoded(self, body: bytes) -> bytes:
        routed = self._routed
        made_id = b"" if routed.headers.request_id else self._context.request_id.encode()
        return REQUEST.join(routed.encoded, made_id, body)

    def _submit(self, request: bytes | None) -> None:
        """Start the call: with the whole request, or with None if it follows as a stream."""
        timeout_s = self._routed.timeout_s
        self._call = call = OutgoingCall(
            CallRequest(
                WEB_METHOD,
                None if request is None else Payload(RAW, request),
                self._context,
                None if timeout_s == math.inf else self._started_at_s + timeout_s,
                request is None,
                True,
                # Without the peer, which the request has: equal Opens of all clients are packed and read once.
                prefers_local=True,
                session_id=self._routed.headers.session_id,
                source=self._exchange.head.peer,
            ),
            self,
        )
        try:
            self._target.router.submit(call)
        except Exception:
            logger.exception("the gateway failed in a web request to %s", self._target.application)
            self._fail(INTERNAL)

    def _forward(self) -> None:
        """Send what the replica takes of the body, and let the client send as much more."""
        call, upload = self._call, self._upload
        if call is None or upload is None:
            return
        waiting = upload.waiting
        while waiting and call.request_credit > 0:
            call.send_item(raw(waiting.popleft()))
        if waiting:
            return
        if self._body is not None and self._body.size and call.request_credit > 0:
            self._exchange.give_room(self._body.release())
        if upload.is_complete and not upload.is_half_closed:
            upload.is_half_closed = True
            call.half_close()

    @property
    def _may_go_on(self) -> bool:
        """Whether the request goes on without its client: it asked for that, and all of the request is here."""
        return self._routed.headers.outlives_client and (self._upload is None or self._upload.is_complete)

    # ---- The answer --------------------------------------------------------------------------------------------------

    def _send_whole(self, payload: Payload | None) -> None:
        """Answer with all that the application has said, in one write."""
        read = self._read_answer(payload)
        if read is None:
            return
        answer, body = read
        exchange = self._exchange
        if answer.has_body and exchange.head.method != "HEAD":
            if not exchange.send_whole(answer.status, answer.fields, body):
                self._fail(NO_ROOM)
                return
            self._target.stats.sent_bytes += len(body)
        else:
            length = len(body) if answer.content_length is None else answer.content_length
            exchange.send_head(answer.status, answer.fields_without_body(length))
            exchange.end()
        self._count(answer.status, answer.route)

    def _begin_answer(self, payload: Payload) -> None:
        """Send the head of a streamed answer, and the first piece of its body."""
        read = self._read_answer(payload)
        if read is None:
            return
        answer, body = read
        has_body = answer.has_body and self._exchange.head.method != "HEAD"
        left_bytes = answer.content_length if has_body else None
        self._download = WebDownload(answer.status, answer.route, left_bytes, has_body)
        if has_body:
            self._exchange.send_head(answer.status, answer.streamed_fields())
            self._send_piece(body)
        else:
            self._exchange.send_head(answer.status, answer.fields_without_body(answer.content_length))

    def _read_answer(self, payload: Payload | None) -> tuple[WebAnswer, bytes] | None:
        """What the application answers; None, and the request has ended, if the client cannot get that."""
        if payload is None or payload.codec != RAW:
            self._fail(INTERNAL)
            return None
        try:
            answer, body = read_response(bytes(payload.data), self._context.request_id)
        except (DecodeError, ValueError) as error:
            self._fail(_unsendable(error))
            return None
        failure = self._timed_out() if answer.status >= INTERNAL_ERROR else None
        if failure is not None:
            self._fail(failure)
            return None
        return answer, body

    def _timed_out(self) -> WebFailure | None:
        """The answer to a request that has failed because its time is over, though its call ended a moment earlier."""
        timeout_s = self._routed.timeout_s
        if monotonic() < self._started_at_s + timeout_s - nested_lead_s(timeout_s):
            return None
        return timed_out(self._context.request_id, timeout_s)

    def _send_piece(self, data: bytes | memoryview) -> None:
        download = self._download
        assert download is not None
        if not download.has_body or not data:
            return
        if download.left_bytes is not None:
            download.left_bytes -= len(data)
            if download.left_bytes < 0:
                self._fail(INTERNAL)
                return
        if not self._exchange.send_body(data):
            self._fail(NO_ROOM)
            return
        self._target.stats.sent_bytes += len(data)

    def _grant(self) -> None:
        """Let the replica send as much more as has left for the client."""
        download, call = self._download, self._call
        if download is not None and call is not None and download.written:
            written, download.written = download.written, 0
            call.grant(written)

    def _fail(self, failure: WebFailure) -> None:
        """End the request with an answer of the gateway's own; with a broken connection if another one has begun."""
        self._status = failure.status
        if self._exchange.has_sent_head:
            self._exchange.abort()
        else:
            send_failure(self._exchange, failure, self._context.request_id)
        if self._call is None:
            self._count(failure.status)
        else:
            self._target.router.cancel(self._call, CancelReason.CLIENT)

    # ---- The end -----------------------------------------------------------------------------------------------------

    def _count(self, status: int, pattern: str = "") -> None:
        """The request is over, though its answer may have to wait for the client."""
        target = self._target
        target.in_flight.leave()
        if self._body is not None:
            self._body.release()
        if self._download is not None:
            pattern = self._download.pattern
        route = target.route_of(pattern)
        duration_s = monotonic() - self._started_at_s
        method = self._exchange.head.method
        target.stats.end(route, method, status, duration_s)
        if target.options.has_access_log:
            log_web_access(method, route, status, duration_s, self._context.request_id)


NewWebCall = Callable[[Exchange, WebTarget, RoutedHead], WebCall]


def _unsendable(error: Exception) -> WebFailure:
    return WebFailure(INTERNAL_ERROR, f"The answer of the application cannot be sent: {error}.")
