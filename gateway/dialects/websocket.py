"""WebSockets of applications: one call whose items are WebSocketEvents in both directions.

There is one object per socket: the owner of its connection and the sink of its call. Neither has a deadline. What the
client sends waits at the client while the replica has no credit for it, and the other way round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from google.protobuf.message import DecodeError

from gateway.dialects.web_target import WebTarget, WebTargets
from gateway.ops.http_metrics import WEBSOCKET
from gateway.ops.web_access_log import log_web_access
from gateway.requests.end_to_end_fields import checked
from gateway.requests.exchange import Exchange, ExchangeReceiver, HttpHead
from gateway.requests.mesh_headers import MeshHeaders, read_mesh_headers
from gateway.requests.web_encoding import encode_request, read_answer
from gateway.requests.web_status import CLIENT_LEFT, INTERNAL, WebFailure, failure_of, send_failure
from gateway.websockets.websocket_connection import (
    BROKEN,
    INTERNAL_FAILURE,
    RESTARTING,
    TRY_AGAIN_LATER,
    WebSocketConnection,
)
from gateway.websockets.websocket_handshake import HandshakeError, read_handshake
from gateway.websockets.websocket_keeper import WebSocketKeeper
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall, grant_at
from mesh.rpc.status_codes import CANCELLED, RESOURCE_EXHAUSTED, UNAVAILABLE
from mesh.settings import settings
from mesh.v1 import web_pb2
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import RAW, Payload, raw
from mesh.wire.web_messages import WEB_METHOD, decode_websocket_event, encode_close, encode_message, header_pairs

logger = logging.getLogger("mesh.gateway")

SWITCHED = 101
"""How accepted sockets count."""
_REFUSED = WebFailure(403, "The application has refused this WebSocket.")
_CLOSE_CODES: dict[int, int] = {
    RESOURCE_EXHAUSTED: TRY_AGAIN_LATER,
    UNAVAILABLE: RESTARTING,
    CANCELLED: RESTARTING,
}
"""How a socket closes whose call has failed."""
_NORMAL = 1000


class WebSocketDialect:
    """Claims WebSockets."""

    def __init__(self, targets: WebTargets, new_call: NewSocketCall | None = None) -> None:
        """`new_call` makes the calls; None: as a plain WebSocketCall."""
        self._targets = targets
        self._new_call = new_call or WebSocketCall
        self._keeper = WebSocketKeeper(self._set_count)

    def claims(self, head: HttpHead) -> bool:
        return head.is_websocket

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a handshake; None if it is refused already."""
        head = exchange.head
        headers = read_mesh_headers(head.fields)
        raw_path = self._targets.path_of(head)
        target = self._targets.find(raw_path)
        if isinstance(target, WebFailure):
            self._targets.refuse(exchange, target, headers)
            return None
        try:
            handshake = read_handshake(head)
        except HandshakeError as error:
            failure = WebFailure(error.status, str(error), error.fields)
            self._targets.refuse(exchange, failure, headers, target)
            return None
        admitted = self._targets.admit(target, exchange)
        if isinstance(admitted, WebFailure):
            self._targets.refuse(exchange, admitted, headers, target)
            return None
        headers = headers._replace(multiplexed_model_id=target.model_id_of(raw_path, headers))
        call = self._new_call(exchange, admitted, headers, self._keeper)
        connection = call.connection = WebSocketConnection(exchange, handshake, call)
        call.begin(raw_path, handshake.subprotocols, headers)
        return None if exchange.has_ended else connection

    def drain(self) -> None:
        """Close all sockets, so that their clients connect again elsewhere."""
        self._keeper.drain()

    def _set_count(self, count: int) -> None:
        self._targets.metrics.websockets = count


class WebSocketCall:
    """The life of a WebSocket."""

    takes_rest = True
    __slots__ = (
        "_answered",
        "_call",
        "_closed",
        "_context",
        "_exchange",
        "_first",
        "_is_half_closed",
        "_keeper",
        "_started_at_s",
        "_target",
        "_written",
        "connection",
    )

    def __init__(self, exchange: Exchange, target: WebTarget, headers: MeshHeaders, keeper: WebSocketKeeper) -> None:
        self._exchange = exchange
        self._target = target
        self._keeper = keeper
        self._context = target.context_of(exchange.head, headers, headers.multiplexed_model_id)
        self._started_at_s = monotonic()
        self._call: OutgoingCall | None = None
        self._first = b""
        """The request, until the replica has credit for it."""
        self._closed: tuple[int, str] | None = None
        """How the client has closed."""
        self._is_half_closed = False
        self._written = 0
        """Credit of messages that were sent and not granted again yet."""
        self._answered = 0, ""
        """How the handshake was answered: status, and pattern of the application's route."""
        self.connection: WebSocketConnection
        target.in_flight.enter()

    def begin(self, raw_path: str, subprotocols: tuple[str, ...], headers: MeshHeaders) -> None:
        """Start the call."""
        exchange, target = self._exchange, self._target
        made_id = b"" if headers.request_id else self._context.request_id.encode()
        self._first = encode_request(target.seen(exchange.head), raw_path, target.root_path, made_id, b"", subprotocols)
        request = CallRequest(WEB_METHOD, None, self._context, None, True, True)
        request.prefers_local, request.session_id, request.source = True, headers.session_id, exchange.head.peer
        self._call = call = OutgoingCall(request, self)
        try:
            target.router.submit(call)
        except Exception:
            logger.exception("the gateway failed in a WebSocket of %s", target.application)
            self._deny(INTERNAL)

    # ---- From the client (WebSocketOwner) ----------------------------------------------------------------------------

    def on_messages(self) -> None:
        self._forward()

    def on_writable(self) -> None:
        self._grant()

    def on_closed(self, code: int, reason: str) -> None:
        """Let the application know, behind the messages that wait, and end its call if that takes it too long."""
        self._keeper.discard(self.connection)
        self._closed = code, reason
        call = self._call
        if call is None:
            return
        if not self.connection.is_accepted or (code == BROKEN and call.request_credit <= 0):
            self._cancel(CancelReason.CLIENT)
            return
        self._forward()
        if self._call is not None:
            asyncio.get_running_loop().call_later(_close_timeout_s(), self._cancel, CancelReason.CLIENT)

    # ---- From the mesh (CallSink) ------------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        self._written += payload.credits
        if not self._exchange.has_ended:
            self._take_event(payload)
        if self._written >= grant_at() and not self.connection.is_blocked:
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
        if not self._exchange.has_ended:
            self._end_socket(outcome)
        if self._exchange.has_ended:
            self.connection.drop()
        self._count()

    # ---- Details -----------------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        """Send what the replica takes: the request, messages, and how the client has closed."""
        call, connection = self._call, self.connection
        if call is None:
            return
        if self._first and call.request_credit > 0:
            first, self._first = self._first, b""
            call.send_item(raw(first))
        while call.request_credit > 0:
            message = connection.take()
            if message is None:
                break
            self._target.stats.received_bytes += len(message)
            call.send_item(raw(encode_message(message)))
        if self._closed is not None and call.request_credit > 0 and not self._is_half_closed:
            self._is_half_closed = True
            if self._closed[0] != BROKEN:
                call.send_item(raw(encode_close(*self._closed)))
            call.half_close()

    def _take_event(self, payload: Payload) -> None:
        """One event of the application."""
        try:
            if payload.codec != RAW:
                raise ValueError("it is not raw bytes")
            event = decode_websocket_event(bytes(payload.data))
            match event.WhichOneof("kind"):
                case "text" if self.connection.is_accepted:
                    self._send(event.text)
                case "binary" if self.connection.is_accepted:
                    self._send(event.binary)
                case "accept" if not self.connection.is_accepted:
                    self._accept(event.accept)
                case "deny" if not self.connection.is_accepted:
                    self._answer(event.deny)
                case "close" if self.connection.is_accepted:
                    self.connection.close(event.close.code, event.close.reason)
                case "close":
                    self._deny(_REFUSED)
                case kind:
                    raise ValueError(f"{kind} came out of turn")
        except (DecodeError, ValueError) as error:
            self._fail(f"it has sent a wrong event: {error}")

    def _accept(self, said: web_pb2.WebSocketAccept) -> None:
        subprotocol = said.subprotocol
        fields = [field for field in checked(header_pairs(said.headers)) if not field[0].startswith(b"sec-websocket-")]
        if not subprotocol.isascii() or not subprotocol.isprintable():
            raise ValueError(f"subprotocol {subprotocol!r} is not printable ASCII")
        self._answered = SWITCHED, said.route
        self._keeper.add(self.connection)
        self.connection.accept(subprotocol, [*fields, (b"x-request-id", self._context.request_id.encode())])

    def _send(self, message: str | bytes) -> None:
        if self.connection.send(message):
            self._target.stats.sent_bytes += len(message)
        elif self._closed is None and self.connection.is_blocked:
            self._fail("it has no room for what it is to get")

    def _answer(self, response: web_pb2.WebResponse) -> None:
        """Answer the handshake with what the application says instead of accepting it."""
        answer = read_answer(response.status, response.headers, self._context.request_id)
        self._answered = answer.status, response.route
        if not self._exchange.send_whole(answer.status, answer.fields, response.body):
            self._exchange.abort()

    def _deny(self, failure: WebFailure) -> None:
        """Answer the handshake with an answer of the gateway's own."""
        self._answered = failure.status, ""
        send_failure(self._exchange, failure, self._context.request_id)
        self._cancel(CancelReason.CLIENT)

    def _fail(self, text: str) -> None:
        """End the socket because of what the application does."""
        logger.warning("a WebSocket of application %s ends: %s", self._target.application, text)
        if self.connection.is_accepted:
            self.connection.close(INTERNAL_FAILURE)
            self._cancel(CancelReason.CLIENT)
        else:
            self._deny(INTERNAL)

    def _end_socket(self, outcome: Outcome) -> None:
        """End the socket, or refuse it, as the call has ended."""
        if not self.connection.is_accepted:
            failure = _REFUSED if outcome.is_ok else failure_of(outcome, self._context.request_id, float("inf"))
            self._deny(failure)
        elif outcome.is_ok:
            self.connection.close(_NORMAL)
        else:
            self.connection.close(_CLOSE_CODES.get(outcome.code, INTERNAL_FAILURE))

    def _cancel(self, reason: CancelReason) -> None:
        if self._call is not None:
            self._target.router.cancel(self._call, reason)

    def _grant(self) -> None:
        """Let the replica send as much more as has left for the client."""
        written, self._written = self._written, 0
        if written and self._call is not None:
            self._call.grant(written)

    def _count(self) -> None:
        """The call is over; the client may still have to answer the close."""
        target, (status, pattern) = self._target, self._answered
        target.in_flight.leave()
        route, duration_s = target.route_of(pattern), monotonic() - self._started_at_s
        status = status or CLIENT_LEFT
        target.stats.end(route, WEBSOCKET, status, duration_s)
        if target.options.has_access_log:
            log_web_access(WEBSOCKET, route, status, duration_s, self._context.request_id)


NewSocketCall = Callable[[Exchange, WebTarget, MeshHeaders, WebSocketKeeper], WebSocketCall]


def _close_timeout_s() -> float:
    return settings().gateway.websocket_close_timeout_s
