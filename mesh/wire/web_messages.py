"""The messages of web calls (`protos/mesh/v1/web.proto`), written and read by gateways and replicas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesh.v1 import web_pb2

WEB_METHOD = "@web"
"""The method of a web call. No method of Python or gRPC can have this name."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""


_CONTENT_LENGTH = b"content-length"
_KEPT_MAX = 256
_KEPT_BYTES_MAX = 1_024
_heads: dict[object, bytes] = {}


def flat_headers(headers: Iterable[Iterable[bytes]]) -> list[bytes]:
    """Pairs of name and value in the form of the messages: name, value, name, value ..."""
    return [bytes(part) for header in headers for part in header]


def header_pairs(flat: Sequence[bytes]) -> Headers:
    """The reverse of `flat_headers`. A name without a value is left out."""
    parts = iter(flat)
    return list(zip(parts, parts, strict=False))


def encode_response(status: int, headers: Iterable[Iterable[bytes]], body: bytes, route: str = "") -> bytes:
    """A WebResponse: the whole response, or its head with the first piece of the body.

    Heads that are sent again and again are serialised once, apart from the length of the body, which comes last.
    """
    listed = tuple(map(tuple, headers))
    length: tuple[bytes, ...] = ()
    if body:
        length = _CONTENT_LENGTH, b"%d" % len(body)
        others = tuple(each for each in listed if each != length)
        listed, length = (listed, ()) if len(others) == len(listed) else (others, length)
    try:
        packed = _heads.get((status, listed, route)) or _pack_head(status, listed, route)
    except TypeError:  # a bytearray has no hash
        packed = _pack_head(status, tuple(tuple(map(bytes, each)) for each in listed), route)
    return packed + web_pb2.WebResponse(headers=length, body=body).SerializeToString() if body else packed


def _pack_head(status: int, headers: tuple[tuple[bytes, ...], ...], route: str) -> bytes:
    packed = web_pb2.WebResponse(status=status, headers=flat_headers(headers), route=route).SerializeToString()
    if len(packed) <= _KEPT_BYTES_MAX:
        if len(_heads) >= _KEPT_MAX:
            _heads.clear()
        _heads[status, headers, route] = packed
    return packed


def with_id_and_body(packed: bytes, name: bytes, value: bytes, body: bytes) -> bytes:
    """A serialised WebRequest with one more header, unless that is empty, and with a body."""
    if not (value or body):
        return packed
    # Protobuf merges messages that stand behind one another.
    more = web_pb2.WebRequest(headers=(name, value) if value else (), body=body)
    return packed + more.SerializeToString()


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


def encode_accept(subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> bytes:
    """The WebSocketEvent that completes a handshake."""
    accept = web_pb2.WebSocketAccept(subprotocol=subprotocol or "", headers=flat_headers(headers))
    return web_pb2.WebSocketEvent(accept=accept).SerializeToString()


def encode_denial(response: web_pb2.WebResponse) -> bytes:
    """The WebSocketEvent that answers a handshake with an HTTP response."""
    return web_pb2.WebSocketEvent(deny=response).SerializeToString()


def encode_close(code: int, reason: str = "") -> bytes:
    """The WebSocketEvent that says that its sender has closed, with a code of RFC 6455."""
    return web_pb2.WebSocketEvent(close=web_pb2.WebSocketClose(code=code, reason=reason)).SerializeToString()
