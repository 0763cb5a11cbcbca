"""`Http2Exchange`: one request that is not gRPC, on a stream of HTTP/2."""

from __future__ import annotations

import logging
import re
from functools import lru_cache

from gateway.dialects.grpc_metadata import ClientHead
from gateway.requests.dialect_list import AnswerFault
from gateway.requests.end_to_end_fields import is_host, one_cookie_field
from gateway.requests.exchange import TEXT, UNHEARD, BrokenBy, Caller, ExchangeReceiver, Fields, HttpHead
from gateway.requests.http_date import http_date
from gateway.requests.in_flight import InFlight
from gateway.requests.route_prefixes import without_root
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_field, encode_fields
from mesh.http2.limits import BufferShare
from mesh.http2.stream import Stream
from mesh.rpc.request_head import RequestHead, check_trailers
from mesh.tls.client_certificate import ClientCertificate

logger = logging.getLogger("mesh.gateway")

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Z]{1,32}").fullmatch
_PATH = re.compile(rb"(/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?").fullmatch
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_VALUE = re.compile(rb"[^\0\r\n]*").fullmatch
_is_name = lru_cache(512)(_NAME)
_repeated_field = lru_cache(64)(encode_field)
"""Fields whose values are the same in very many answers."""
_DROPPED = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"sec-websocket-accept"}
)
"""What an answer may have only on HTTP/1.1."""
_CONTINUE = encode_fields([(b":status", b"100")])
_BY_CODE: dict[int, BrokenBy] = {
    ErrorCode.PROTOCOL_ERROR: BrokenBy.PROTOCOL,
    ErrorCode.FLOW_CONTROL_ERROR: BrokenBy.PROTOCOL,
    ErrorCode.ENHANCE_YOUR_CALM: BrokenBy.PROTOCOL,
    ErrorCode.STREAM_CLOSED: BrokenBy.PROTOCOL,
    ErrorCode.INTERNAL_ERROR: BrokenBy.DRAIN,
}
_ANY_BYTES = 2**62
"""A place in a body that is not reached: a WebSocket may pause everywhere."""


def read_http2_head(
    client: ClientHead,
    peer: str,
    *,
    is_tls: bool,
    has_body: bool,
    certificate: ClientCertificate | None = None,
    root_path: str = "",
) -> HttpHead | int:
    """The head for dialects; or the status of the answer to a request that none of them can take."""
    pseudo = {name: value for name, value in client.fields if name[:1] == b":"}
    method, is_websocket = pseudo[b":method"], False
    if method == b"CONNECT":
        if pseudo.get(b":protocol") != b"websocket":
            return 501
        method, is_websocket = b"GET", True
    if not _METHOD(method):
        return 501
    target = _PATH(pseudo[b":path"])
    if target is None:
        return 204 if (method, pseudo[b":path"]) == (b"OPTIONS", b"*") else 400
    fields = [field for field in client.fields if field[0][:1] != b":"]
    if b":authority" in pseudo:
        fields = [(b"host", pseudo[b":authority"]), *(field for field in fields if field[0] != b"host")]
    if not all(is_host(value) for name, value in fields if name == b"host"):
        return 400
    return HttpHead(
        method=method.decode(),
        path=without_root(root_path, target[1].decode()),
        query=target[2] or b"",
        fields=one_cookie_field([field for field in fields if field[0] != b"te"]),
        scheme=("ws" if is_websocket else "http") + ("s" if is_tls else ""),
        http_version="2",
        peer=peer,
        content_length=client.content_length,
        has_body=has_body,
        certificate=certificate,
    )


def _expects_continue(head: HttpHead) -> bool:
    return head.has_body and head.by_name.get(b"expect", b"").lower() == b"100-continue"


def refuse_http2(stream: Stream, status: int) -> None:
    """Answer a request that no dialect can take."""
    block = encode_fields([(b":status", b"%d" % status), (b"date", http_date())])
    stream.may_linger = True
    stream.connection.send_response(stream, block, b"")


class Http2Exchange:
    """See `gateway.requests.exchange.Exchange`. It is also what its stream knows as receiver."""

    __slots__ = (
        "_answer_fault",
        "_has_body",
        "_in_flight",
        "_stream",
        "caller",
        "has_ended",
        "has_sent_head",
        "head",
        "receiver",
    )

    def __init__(self, stream: Stream, head: HttpHead, in_flight: InFlight, answer_fault: AnswerFault) -> None:
        self._stream = stream
        self._answer_fault = answer_fault
        self._in_flight = in_flight
        self._has_body = True
        """Whether the answer may have one."""
        self.head = head
        self.caller: Caller | None = None
        self.receiver: ExchangeReceiver = UNHEARD
        self.has_sent_head = False
        self.has_ended = False
        if head.is_websocket:
            stream.pause_bytes = _ANY_BYTES
        in_flight.enter()

    def __repr__(self) -> str:
        return f"<Http2Exchange {self.head.method} {self._stream!r}>"

    @property
    def share(self) -> BufferShare:
        share: BufferShare = self._stream.connection.outbox.share
        return share

    @property
    def is_blocked(self) -> bool:
        return not self.has_ended and self._stream.is_blocked

    # ---- Exchange ----------------------------------------------------------------------------------------------------

    def send_head(self, status: int, fields: Fields) -> None:
        if not (self.has_ended or self.has_sent_head):
            block = self._block(status, fields)
            if block is not None:
                self.has_sent_head = True
                self._stream.connection.outbox.send_headers(self._stream, block)

    def send_body(self, data: bytes | memoryview) -> bool:
        if self.has_ended or not self.has_sent_head or not self._has_body or not data:
            return True
        sent: bool = self._stream.connection.outbox.offer_data(self._stream, data)
        return sent

    def end(self, trailers: Fields | None = None) -> None:
        if self.has_ended:
            return
        if not self.has_sent_head:
            self._fail("an end without a head")
            return
        wrong = _wrong_field(trailers or ())
        if wrong:
            self._fail(wrong)
            return
        self._finish()
        self._stream.may_linger = True
        self._stream.connection.outbox.end(self._stream, encode_fields(trailers) if trailers else b"")

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        if self.has_ended or self.has_sent_head:
            return True
        block = self._block(status, fields, whole_length=len(body))
        if block is None:
            return True
        body = body if self._has_body else b""
        self._stream.may_linger = True
        if not self._stream.connection.send_response(self._stream, block, body):
            return False
        self.has_sent_head = True
        self._finish()
        return True

    def give_room(self, size: int) -> None:
        self._stream.connection.give_room(self._stream, size)

    def ask_for_body(self) -> None:
        if _expects_continue(self.head) and not (self.has_ended or self.has_sent_head or self._stream.received_bytes):
            self._stream.connection.outbox.send_interim(self._stream, _CONTINUE)

    def let_pause(self, begun_bytes: int = 0) -> None:
        self._stream.pause_bytes = self._stream.received_bytes - begun_bytes

    def open_tunnel(self, fields: Fields) -> None:
        if self.head.is_websocket:
            self.send_head(200, [field for field in fields if field[0] != b"content-length"])

    def abort(self) -> None:
        if not self.has_ended:
            self._finish()
            self._stream.connection.reset(self._stream, ErrorCode.INTERNAL_ERROR)

    # ---- Receiver of the stream --------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: RequestHead | None, *, ended: bool) -> None:
        """Trailers of the request, which no dialect has a use for."""
        check_trailers(stream, head)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        self.receiver.on_body(data[start:stop])

    def on_end(self, stream: Stream) -> None:
        self.receiver.on_end()

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        if not self.has_ended:
            receiver = self.receiver
            self._finish()
            receiver.on_broken(_BY_CODE.get(code, BrokenBy.CLIENT))

    def on_writable(self, stream: Stream) -> None:
        self.receiver.on_writable()

    def on_stalled(self) -> None:
        """Too little has come of the request for too long."""
        if not self.has_ended:
            receiver = self.receiver
            if self.has_sent_head:
                self.abort()
                receiver.on_broken(BrokenBy.TIMEOUT)
            else:
                self._finish()
                receiver.on_broken(BrokenBy.TIMEOUT)
                self._refuse(408, "The request took too long to arrive.")

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, text: str) -> None:
        """Answer what has been broken off, by its dialect or without a body."""
        exchange = Http2Exchange(self._stream, self.head, self._in_flight, self._answer_fault)
        if not self._answer_fault(exchange, status, text):
            exchange._finish()
            refuse_http2(self._stream, status)

    def _block(self, status: int, fields: Fields, whole_length: int | None = None) -> bytes | None:
        """The header block; None if it is not valid: then another answer was sent.

        `whole_length`: size of the whole body, which then is the content-length.
        """
        if not 200 <= status <= 999:
            self._fail(f"status {status}")
            return None
        self._has_body = self.head.method != "HEAD" and status not in (204, 304)
        parts = [_repeated_field(b":status", b"%d" % status)]
        has_date = False
        for field in fields:
            name, value = field
            if not _is_name(name) or not _VALUE(value):
                self._fail(_wrong_field([field]))
                return None
            if name in _DROPPED or (name == b"content-length" and whole_length is not None):
                continue
            if name == b"date":
                has_date = True
            parts.append(encode_field(name, value))
        if whole_length is not None and status != 204:
            parts.append(encode_field(b"content-length", b"%d" % whole_length))
        if not has_date:
            parts.append(_repeated_field(b"date", http_date()))
        return b"".join(parts)

    def _finish(self) -> None:
        """Nothing that happens on the stream is of interest any more."""
        self.has_ended = True
        self.receiver = UNHEARD
        self._in_flight.leave()

    def _fail(self, text: str) -> None:
        """The answer is not valid: another one says so, or none if its head has left."""
        logger.error("the answer to %s %s is not valid HTTP: %s", self.head.method, self.head.path, text)
        if not self.has_sent_head:
            self.send_whole(500, [TEXT], b"The answer of the server was not valid HTTP; its log has the reason.\n")
        self.abort()


def _wrong_field(fields: Fields | tuple[()]) -> str:
    for name, value in fields:
        if not _is_name(name) or not _VALUE(value):
            return f"field {name!r}"
    return ""
