"""gRPC-Web: unary calls and server streams of browsers, over any version of HTTP, as bytes or as base64 text.

The frames are those of gRPC; the trailers are the last frame of the body, so no part of HTTP has to carry them. Answers
to wrong requests have a body of trailers too: a browser can always read it, whatever headers CORS lets it see.
"""

from __future__ import annotations

from base64 import b64encode

from gateway.dialects.compression import RequestDecompression, request_decompression
from gateway.dialects.grpc_metadata import REQUEST_ID_KEY, Invocation
from gateway.dialects.grpc_status import fit_details
from gateway.dialects.http_metadata import read_http_invocation, write_fields, write_value
from gateway.dialects.method_call import CallEnd, MethodCall
from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.request_flow import RequestFlow
from gateway.dialects.served_method import ServedMethod
from gateway.requests.equal_heads import EqualHeads
from gateway.requests.exchange import TEXT, BrokenBy, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from gateway.requests.mesh_headers import request_id_of
from gateway.requests.routes import Refusal
from gateway.transcoding.status_json import CODE_OF_FAULT
from gateway.web_rpc.base64_pieces import Base64Pieces
from gateway.web_rpc.envelope_reader import EnvelopeReader, envelope, sent_envelope
from mesh.rpc.grpc_fields import Entry, quote_message, read_encoding, read_timeout
from mesh.rpc.message_reader import ACCEPTED_ENCODINGS, ENCODINGS
from mesh.rpc.status_codes import INVALID_ARGUMENT, UNIMPLEMENTED

_BINARY = "application/grpc-web"
_TEXT = "application/grpc-web-text"
_CONTENT_TYPES = {kind + suffix: kind is _TEXT for kind in (_BINARY, _TEXT) for suffix in ("", "+proto")}
"""Those that are served, and whether they are text."""
_OWN_FIELDS = frozenset({b"x-grpc-web"})
_TRAILERS = 0x80
"""The flag of the frame with the trailers."""


class GrpcWebDialect:
    """Serves the requests of one listener."""

    def __init__(self, methods: ServedMethods) -> None:
        self._methods = methods
        self._heads = EqualHeads(_read_head)

    def claims(self, head: HttpHead) -> bool:
        """Whether a request is one of gRPC-Web, or means to be one."""
        return head.content_type.startswith(_BINARY)

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of a request; None if it is answered."""
        head = exchange.head
        is_text = _CONTENT_TYPES.get(head.content_type)
        if is_text is None:
            text = f"This gateway takes {', '.join(_CONTENT_TYPES)}; messages are Protobuf."
            answer(exchange, 415, [TEXT], text.encode())
            return None
        if head.method != "POST":
            answer(exchange, 405, [(b"allow", b"POST")])
            return None
        try:
            invocation, timeout_s = self._heads.read(head)
        except ValueError as error:
            self._refuse(exchange, Refusal(INVALID_ARGUMENT, str(error)))
            return None
        method = self._find(exchange, invocation)
        if isinstance(method, Refusal):
            self._refuse(exchange, method)
            return None
        return _GrpcWebCall(exchange, method, invocation, timeout_s, is_text=is_text)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> bool:
        """See `RefusingDialect`: a browser reads the status at the end of the body."""
        is_served = exchange.head.content_type in _CONTENT_TYPES
        if is_served:
            self._refuse(exchange, refusal)
        return is_served

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `FaultDialect`. The call that the request has begun is counted already."""
        is_served = exchange.head.content_type in _CONTENT_TYPES
        if is_served:
            _answer_refusal(exchange, Refusal(CODE_OF_FAULT.get(status, INVALID_ARGUMENT), text))
        return is_served

    def _find(self, exchange: Exchange, invocation: Invocation) -> ServedMethod | Refusal:
        head = exchange.head
        method = self._methods.find_for(invocation.application, head.path, exchange)
        if isinstance(method, Refusal):
            return method
        encoding = _encoding(head)
        if encoding and encoding not in ENCODINGS:
            accepted = ACCEPTED_ENCODINGS.decode()
            text = f"Messages compressed with {encoding[:40]!r} cannot be read here. This gateway reads {accepted}."
            return Refusal(UNIMPLEMENTED, text, method.application)
        if method.streams_request:
            text = f"{method.full_name} streams its requests, which gRPC-Web cannot. Call it by gRPC or Connect."
            return Refusal(UNIMPLEMENTED, text, method.application)
        return method

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._methods.count_refusal(refusal)
        _answer_refusal(exchange, refusal)


def _answer_refusal(exchange: Exchange, refusal: Refusal) -> None:
    is_text = _CONTENT_TYPES[exchange.head.content_type]
    request_id = request_id_of(exchange.head.fields)
    end = CallEnd(refusal.code, fit_details(refusal.message), ((REQUEST_ID_KEY, request_id),))
    frame = _trailers_frame(end)
    answer(exchange, 200, _response_fields(exchange.head, request_id), b64encode(frame) if is_text else frame)


class _GrpcWebCall:
    """One call: receives its exchange, and owns its MethodCall."""

    __slots__ = ("_call", "_exchange", "_flow", "_initial", "_is_text")

    def __init__(
        self,
        exchange: Exchange,
        method: ServedMethod,
        invocation: Invocation,
        timeout_s: float | None,
        *,
        is_text: bool,
    ) -> None:
        head = exchange.head
        accepted = head.all_of(b"grpc-accept-encoding").decode("latin-1").replace(" ", "").split(",")
        self._exchange = exchange
        self._is_text = is_text
        self._initial: tuple[Entry, ...] = ()
        self._call = MethodCall(exchange, method, self, invocation, timeout_s=timeout_s, accepts=accepted.__contains__)
        reader_type = _TextReader if is_text else EnvelopeReader
        decompression = request_decompression(exchange.share, _encoding(head), method.decompressed_max_bytes)
        self._flow = RequestFlow(exchange, self._call, reader_type(method.message_max_bytes, decompression))

    # ---- From the client (ExchangeReceiver) --------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._flow.on_body(data)

    def on_end(self) -> None:
        self._flow.on_end()

    def on_broken(self, by: BrokenBy) -> None:
        self._call.cancel()

    def on_writable(self) -> None:
        self._call.grant()

    # ---- From the mesh (CallOwner) -----------------------------------------------------------------------------------

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        self._initial = entries
        if self._call.method.streams_response:
            self._send_head()

    def on_message(self, message: bytes | memoryview) -> bool:
        if not self._exchange.has_sent_head:
            self._send_head()
        return self._exchange.send_body(self._written(sent_envelope(message, self._call.compression)))

    def on_request_room(self) -> None:
        """Requests are not streamed."""

    def on_status(self, end: CallEnd) -> int | None:
        exchange = self._exchange
        body = self._written(_trailers_frame(end))
        if exchange.has_sent_head:
            if not exchange.send_body(body):
                return None
            exchange.end()
            return end.code
        if end.response is not None:
            body = self._written(sent_envelope(end.response, self._call.compression)) + body
        return end.code if exchange.send_whole(200, self._head_fields(), body) else None

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _send_head(self) -> None:
        self._exchange.send_head(200, self._head_fields())

    def _head_fields(self) -> Fields:
        fields = _response_fields(self._exchange.head, self._call.request_id)
        compression = self._call.compression
        if compression is not None and compression.encoding:
            fields.append((b"grpc-encoding", compression.encoding.encode()))
        return fields + write_fields(self._initial)

    def _written(self, frame: bytes) -> bytes:
        return b64encode(frame) if self._is_text else frame


class _TextReader(EnvelopeReader):
    """Reads frames that are base64."""

    __slots__ = ("_pieces",)

    def __init__(self, max_bytes: int, decompression: RequestDecompression | None = None) -> None:
        super().__init__(max_bytes, decompression)
        self._pieces = Base64Pieces()

    def feed(self, data: bytes) -> None:
        super().feed(self._pieces.feed(data))

    def end(self) -> None:
        self._pieces.end()
        super().end()


def _read_head(head: HttpHead) -> tuple[Invocation, float | None]:
    """What the head says, and the time that its client leaves the call. Raises ValueError."""
    timeout = head.by_name.get(b"grpc-timeout")
    return read_http_invocation(head.fields, _OWN_FIELDS), None if timeout is None else read_timeout(timeout)


def _encoding(head: HttpHead) -> str:
    return read_encoding(head.by_name.get(b"grpc-encoding", b""))


def _response_fields(head: HttpHead, request_id: str) -> Fields:
    return [(b"content-type", head.content_type.encode()), (b"x-request-id", request_id.encode())]


def _trailers_frame(end: CallEnd) -> bytes:
    lines = [b"grpc-status:%d\r\n" % end.code]
    if end.message:
        lines.append(b"grpc-message:%b\r\n" % quote_message(end.message))
    if end.code == UNIMPLEMENTED:
        lines.append(b"grpc-accept-encoding:%b\r\n" % ACCEPTED_ENCODINGS)
    lines.extend(b"%b:%b\r\n" % (key.encode(), write_value(key, value)) for key, value in end.trailers)
    return envelope(b"".join(lines), _TRAILERS)
