"""Typed methods over WebSockets: each message is one of the method's, as JSON text or as binary Protobuf.

An empty text message says that the request is complete. Answers have the form of the client's last message. The socket
closes with 1000 when the call went well, else with 4000 plus the code of gRPC and the message as the reason; in front
of that comes a text message with the key "error", which has the whole status.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.dialects.grpc_status import fit_details
from gateway.dialects.json_http.json_bodies import LINE_MAX_BYTES
from gateway.dialects.json_http.json_dialect import answer_refused, application_of
from gateway.dialects.json_http.json_headers import JsonHead, details_of, read_json_head, with_query
from gateway.dialects.json_http.json_methods import JsonMethods, JsonTarget
from gateway.dialects.method_call import GATEWAY_FAILED, CallEnd
from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.served_method import ServedMethod
from gateway.dialects.translation.large_response import NO_ROOM_FOR_RESPONSE, translate_response
from gateway.dialects.translation.paced_call import PacedCall
from gateway.dialects.translation.translation_thread import translate_in_thread
from gateway.dialects.translation.turn_budget import fits_turn
from gateway.requests.exchange import Exchange, ExchangeReceiver, HttpHead
from gateway.requests.routes import Refusal
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.status_json import status_json
from gateway.transcoding.stream_forms import JSON_LINES
from gateway.websockets.websocket_connection import WebSocketConnection
from gateway.websockets.websocket_frames import Message
from gateway.websockets.websocket_handshake import HandshakeError, read_handshake
from gateway.websockets.websocket_keeper import WebSocketKeeper
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import HTTP_STATUS, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED

logger = logging.getLogger("mesh.gateway")

_NORMAL = 1000
_CODES_FROM = 4000
"""Private codes: 4000 plus the code of gRPC."""
_COMPLETE = ""


class MethodSocketDialect:
    """Claims WebSockets at the paths of typed methods."""

    def __init__(self, methods: ServedMethods, json_methods: JsonMethods) -> None:
        self._methods = methods
        self._json_methods = json_methods
        self._keeper = WebSocketKeeper()

    def claims(self, head: HttpHead) -> bool:
        """Claims unknown methods of known services too, to refuse them: no web application serves these paths."""
        is_known = head.is_websocket and self._find(head) is not None
        return is_known or (head.is_websocket and self._json_methods.knows_service(head.path))

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a handshake; None if it is refused already."""
        head = exchange.head
        target = self._find(head) or self._methods.find(application_of(head), head.path)
        if isinstance(target, Refusal):
            self._refuse(exchange, self._methods.shown(target, exchange))
            return None
        assert isinstance(target, JsonTarget), "methods of the routes are found"
        try:
            handshake, json_head = read_handshake(head), read_json_head(head)
            json_head = with_query(json_head, head.query, target.translation.request.mesh_parameters)
        except HandshakeError as error:
            answer_refused(exchange, error.status, status_json(INVALID_ARGUMENT, str(error)), [*error.fields])
            return None
        except ValueError as error:
            answer_refused(exchange, HTTP_STATUS[INVALID_ARGUMENT], status_json(INVALID_ARGUMENT, str(error)))
            return None
        translation = target.translation
        method = self._methods.find_for(translation.application, translation.full_name, exchange)
        if isinstance(method, Refusal):
            self._refuse(exchange, method)
            return None
        socket = MethodSocket(exchange, target, method, json_head, self._keeper)
        socket.begin(WebSocketConnection(exchange, handshake, socket))
        return None if exchange.has_ended else socket.connection

    def drain(self) -> None:
        """Close all sockets, so that their clients connect again elsewhere."""
        self._keeper.drain()

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._methods.count_refusal(refusal)
        answer_refused(exchange, HTTP_STATUS[refusal.code], status_json(refusal.code, fit_details(refusal.message)))

    def _find(self, head: HttpHead) -> JsonTarget | Refusal | None:
        """By the path of the method itself: rules are for requests."""
        try:
            found = self._json_methods.find("POST", head.path, application_of(head))
        except FieldError:
            return None
        if isinstance(found, JsonTarget):
            translation = found.translation
            return found if translation.rule.path == translation.full_name else None
        return found if isinstance(found, Refusal) else None


class MethodSocket:
    """The life of one: the owner of its connection and of its call."""

    takes_rest = False
    """A client that leaves cancels its call."""
    __slots__ = (
        "_call",
        "_exchange",
        "_has_started",
        "_is_binary",
        "_is_complete",
        "_keeper",
        "_reading",
        "_target",
        "_task",
        "connection",
    )

    def __init__(
        self, exchange: Exchange, target: JsonTarget, method: ServedMethod, head: JsonHead, keeper: WebSocketKeeper
    ) -> None:
        self._exchange = exchange
        self._target = target
        self._keeper = keeper
        self._is_binary = False
        """Whether the client speaks Protobuf."""
        self._has_started = method.streams_request
        self._is_complete = False
        self._call = PacedCall(exchange, method, self, head.invocation, timeout_s=head.timeout_s)
        self._task: asyncio.Task[None] | None = None
        """Translates a large response. It ends by itself."""
        self._reading: asyncio.Task[None] | None = None
        """Translates a message of the client that is large, or comes in a turn in which much was translated."""
        self.connection: WebSocketConnection

    def begin(self, connection: WebSocketConnection) -> None:
        """Accept the socket, and start a call whose request is streamed."""
        self.connection = connection
        self._keeper.add(connection)
        connection.accept("", [(b"x-request-id", self._call.request_id.encode())])
        if self._has_started:
            self._call.start(None)

    # ---- From the client (WebSocketOwner) ----------------------------------------------------------------------------

    def on_messages(self) -> None:
        self._forward()

    def on_writable(self) -> None:
        self._call.grant()

    def on_closed(self, code: int, reason: str) -> None:
        self._keeper.discard(self.connection)
        self._call.cancel()
        self._end_reading()

    # ---- From the mesh (CallOwner) -----------------------------------------------------------------------------------

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        """The handshake is over: no header field can carry them."""

    def on_message(self, message: bytes | memoryview) -> bool:
        try:
            return self.send_translated(self.translate(message))
        except ValueError as error:
            return self.send_translated(error)

    def translate(self, message: bytes | memoryview) -> Message:
        """What the client gets for a message of the response."""
        return bytes(message) if self._is_binary else self._target.translation.response.json(message).decode()

    def send_translated(self, translated: Message | ValueError) -> bool:
        """Send one message of a streamed response."""
        if self.connection.has_closed:
            return True
        if isinstance(translated, ValueError):
            text = f"A response of {self._call.method.full_name} cannot be JSON: {translated}"
            self._call.refuse(INTERNAL, text)
            return True
        return self.connection.send(translated)

    def on_request_room(self) -> None:
        self._forward()

    def on_status(self, end: CallEnd) -> int | None:
        self._end_reading()
        if self.connection.has_closed:
            return end.code
        if end.response is not None and end.is_ok:
            if not (self._is_binary or fits_turn(len(end.response))):
                self._task = asyncio.get_running_loop().create_task(self._finish_large(end))
                return end.code
            try:
                if not self.connection.send(self.translate(end.response)):
                    return None
            except ValueError as error:
                end = self._untranslatable(end, error)
        self._finish(end)
        return end.code

    # ---- Inside ------------------------------------------------------------------------------------------------------

    async def _finish_large(self, end: CallEnd) -> None:
        """The call is counted as a success already; its answer may still fail."""
        assert end.response is not None
        try:
            translated = await translate_response(self._exchange.share, self.translate, end.response)
        except ValueError as error:
            end = self._untranslatable(end, error)
        except MessageError as error:
            end = CallEnd(error.code, error.text, end.trailers)
        except Exception:
            logger.exception("a response of %s was not translated", self._call.method.full_name)
            end = CallEnd(INTERNAL, GATEWAY_FAILED, end.trailers)
        else:
            if not (self.connection.has_closed or self.connection.send(translated)):
                end = CallEnd(RESOURCE_EXHAUSTED, NO_ROOM_FOR_RESPONSE, end.trailers)
        if not self.connection.has_closed:
            self._finish(end)

    def _untranslatable(self, end: CallEnd, error: ValueError) -> CallEnd:
        text = f"The response of {self._call.method.full_name} cannot be JSON: {error}"
        return CallEnd(INTERNAL, text, end.trailers)

    def _finish(self, end: CallEnd) -> None:
        if end.is_ok:
            self.connection.close(_NORMAL)
        else:
            self._fail(status_json(end.code, end.message, details_of(end.trailers), self._target.translation.pool), end)

    def _forward(self) -> None:
        """Send what the replica takes; the rest waits at the client."""
        call = self._call
        while not call.is_over and self._reading is None and (call.can_send or not self._has_started):
            message = self.connection.take()
            if message is None:
                return
            try:
                self._take(message)
            except FieldError as error:
                call.refuse(INVALID_ARGUMENT, str(error))

    def _take(self, message: Message) -> None:
        call = self._call
        if self._is_complete:
            raise FieldError("a message came behind the empty one that completes the request")
        if message == _COMPLETE and isinstance(message, str) and call.method.streams_request:
            self._is_complete = True
            call.half_close()
            return
        self._is_binary = isinstance(message, bytes)
        limit_bytes = call.method.message_max_bytes if isinstance(message, bytes) else LINE_MAX_BYTES
        if len(message) > limit_bytes:
            call.refuse(RESOURCE_EXHAUSTED, f"A message has more than {limit_bytes} bytes.")
            return
        if isinstance(message, bytes):
            self._pass_on(message)
        elif fits_turn(len(message)):
            self._pass_on(self._bound(message))
        elif call.hold(len(message)):
            self._reading = asyncio.get_running_loop().create_task(self._read_large(message))

    async def _read_large(self, text: str) -> None:
        """Translate in a thread. What the client sends meanwhile waits at it."""
        try:
            request = await translate_in_thread(len(text), self._bound, text)
        except FieldError as error:
            self._call.refuse(INVALID_ARGUMENT, str(error))
        except Exception:
            logger.exception("a message to %s was not translated", self._call.method.full_name)
            self._call.refuse(INTERNAL, GATEWAY_FAILED)
        else:
            self._reading = None
            self._call.hold(0)
            self._pass_on(request)
            self._forward()

    def _end_reading(self) -> None:
        """The call is over: nothing more is sent."""
        reading, self._reading = self._reading, None
        if reading is not None and reading is not asyncio.current_task():
            reading.cancel()

    def _pass_on(self, request: bytes) -> None:
        if self._call.method.streams_request:
            self._call.send(request)
        else:
            self._has_started = self._is_complete = True
            self._call.start(request)

    def _bound(self, text: str) -> bytes:
        return self._target.translation.request.bind((), b"", text.encode())

    def _fail(self, status: bytes, end: CallEnd) -> None:
        error = JSON_LINES.error(status).rstrip().decode()
        self.connection.send(error)
        self.connection.close(_CODES_FROM + end.code, end.message)
