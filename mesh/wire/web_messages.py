"""The messages of web calls (`protos/mesh/v1/web.proto`), written and read by gateways and replicas.

The requests of a client, and the answers of an application, nearly always have equal heads. So a head is serialised
once, and read once: it stands in front with its length, and what differs is written and read behind it without objects
of protobuf, which would cost more than all else in a small request. The bytes are messages that protobuf reads as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh.v1 import web_pb2
from mesh.wire.varints import varint, varint_at

WEB_METHOD = "@web"
"""The method of a web call. No method of Python or gRPC can have this name."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""

KEPT_BYTES_MAX = 1_024
"""Larger heads are not kept, neither where they are written nor where they are read."""
_CONTENT_LENGTH = b"content-length"
_KEPT_MAX = 256
_HEAD_TAG = 0x78  # field 15, a number
_heads: dict[object, bytes] = {}


def flat_headers(headers: Iterable[Iterable[bytes]]) -> list[bytes]:
    """Pairs of name and value in the form of the messages: name, value, name, value ..."""
    return [bytes(part) for header in headers for part in header]


def header_pairs(flat: Sequence[bytes]) -> Headers:
    """The reverse of `flat_headers`. A name without a value is left out."""
    parts = iter(flat)
    return list(zip(parts, parts, strict=False))


# ---- Heads, and what differs behind them -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageForm:
    """How one of the messages says what is not part of its head: the value of one header, and the body."""

    header: bytes
    """Its name as it stands there, up to the length of the value."""
    body_tag: int

    def join(self, head: bytes, value: bytes, body: bytes) -> bytes:
        """The message. `head`: of `head_part`. An empty value or body is left out."""
        if value:
            head = b"%b%b%b%b" % (head, self.header, varint(len(value)), value)
        return b"%b%c%b%b" % (head, self.body_tag, varint(len(body)), body) if body else head

    def split(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """The head, the value and the body; None for a message that only protobuf can read."""
        try:
            if data[0] != _HEAD_TAG:
                return None
            size, start = varint_at(data, 1)
            end = start + size
            head, value = data[start:end], b""
            if data.startswith(self.header, end):
                size, start = varint_at(data, end + len(self.header))
                end = start + size
                value = data[start:end]
            if end == len(data):
                return head, value, b""
            if data[end] != self.body_tag:
                return None
            size, start = varint_at(data, end + 1)
        except IndexError:
            return None
        return (head, value, data[start:]) if start + size == len(data) else None


REQUEST = MessageForm(b"\x32\x0cx-request-id\x32", 0x72)
RESPONSE = MessageForm(b"\x12\x0econtent-length\x12", 0x1A)


def head_part(message: web_pb2.WebRequest | web_pb2.WebResponse) -> bytes:
    """The beginning of all messages with this head."""
    packed = message.SerializeToString()
    return b"%c%b%b" % (_HEAD_TAG, varint(len(packed)), packed)


def encode_response(status: int, headers: Iterable[Iterable[bytes]], body: bytes, route: str = "") -> bytes:
    """A WebResponse: the whole response, or its head with the first piece of the body.

    The length of the body, if the headers say it, comes last.
    """
    listed = [*map(tuple, headers)]
    length = b""
    if body:
        own = _CONTENT_LENGTH, b"%d" % len(body)
        if own in listed:
            listed.remove(own)
            length = own[1]
    try:
        key = status, route, *listed
        packed = _heads.get(key) or _pack_head(key, status, listed, route)
    except TypeError:  # a bytearray has no hash
        listed = [(bytes(name), bytes(value)) for name, value in listed]
        packed = _pack_head((status, route, *listed), status, listed, route)
    return RESPONSE.join(packed, length, body)


def _pack_head(key: object, status: int, headers: Sequence[tuple[bytes, ...]], route: str) -> bytes:
    packed = head_part(web_pb2.WebResponse(status=status, headers=flat_headers(headers), route=route))
    if len(packed) <= KEPT_BYTES_MAX:
        if len(_heads) >= _KEPT_MAX:
            _heads.clear()
        _heads[key] = packed
    return packed


# ---- Whole messages --------------------------------------------------------------------------------------------------


def decode_request(data: bytes) -> web_pb2.WebRequest:
    """Raises DecodeError."""
    return web_pb2.WebRequest.FromString(data)


def decode_response(data: bytes) -> web_pb2.WebResponse:
    """Raises DecodeError."""
    return web_pb2.WebResponse.FromString(data)


def decode_websocket_event(data: bytes) -> web_pb2.WebSocketEvent:
    """Raises DecodeError."""
    return web_pb2.WebSocketEvent.FromString(data)


def encode_message(message: str | bytes) -> bytes:
    """The WebSocketEvent of a text or a binary message."""
    event = web_pb2.WebSocketEvent(text=message) if isinstance(message, str) else web_pb2.WebSocketEvent(binary=message)
    return event.SerializeToString()


def encode_accept(subprotocol: str | None, headers: Iterable[Iterable[bytes]], route: str = "") -> bytes:
    """The WebSocketEvent that completes a handshake."""
    accept = web_pb2.WebSocketAccept(subprotocol=subprotocol or "", headers=flat_headers(headers), route=route)
    return web_pb2.WebSocketEvent(accept=accept).SerializeToString()


def encode_denial(response: web_pb2.WebResponse) -> bytes:
    """The WebSocketEvent that answers a handshake with an HTTP response."""
    return web_pb2.WebSocketEvent(deny=response).SerializeToString()


def encode_close(code: int, reason: str = "") -> bytes:
    """The WebSocketEvent that says that its sender has closed, with a code of RFC 6455."""
    return web_pb2.WebSocketEvent(close=web_pb2.WebSocketClose(code=code, reason=reason)).SerializeToString()
