"""The handshake of a WebSocket: what a client asks for, and the header fields that accept it. Pure.

The same for HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), which has no key.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension, parse_subprotocol

from gateway.requests.exchange import Fields, HttpHead

_VERSION = b"13"
_KEY_BYTES = 16

# A compressor that remembers earlier messages holds up to 300 KB for each connection; this one holds nothing.
_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True, compress_settings={"level": 1}
)


class HandshakeError(Exception):
    """The client's request cannot become a WebSocket."""

    def __init__(self, status: int, text: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request for a WebSocket that may be accepted."""

    subprotocols: tuple[str, ...]
    """As the client offers them, best first."""
    accept: Fields
    """Fields that accept it, without those of the connection and the subprotocol."""
    deflate: PerMessageDeflate | None
    """The extension that compresses messages, if the client has offered it."""


def read_handshake(head: HttpHead) -> Handshake:
    """Raises HandshakeError with the answer."""
    if _values(head, b"sec-websocket-version") != [_VERSION]:
        raise HandshakeError(426, "WebSockets are served in version 13.", ((b"sec-websocket-version", _VERSION),))
    accept: Fields = []
    if head.http_version != "2":
        _check_key(head)
    try:
        subprotocols = [
            name for value in _values(head, b"sec-websocket-protocol") for name in parse_subprotocol(_text(value))
        ]
        deflate, extension = _deflate(head)
    except InvalidHeader as error:
        raise HandshakeError(400, f"The WebSocket handshake has a wrong header: {error}.") from error
    if extension:
        accept.append((b"sec-websocket-extensions", extension))
    return Handshake(tuple(subprotocols), accept, deflate)


def _check_key(head: HttpHead) -> None:
    """The connection answers with what follows from the key; it must be one."""
    keys = _values(head, b"sec-websocket-key")
    try:
        is_right = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        is_right = False
    if not is_right:
        raise HandshakeError(400, "A WebSocket handshake has one Sec-WebSocket-Key of 16 bytes in base64.")


def _deflate(head: HttpHead) -> tuple[PerMessageDeflate | None, bytes]:
    """The negotiated extension, and the value of the response's field that names it."""
    for value in _values(head, b"sec-websocket-extensions"):
        for name, parameters in parse_extension(_text(value)):
            if name != _DEFLATE.name:
                continue
            try:
                agreed, extension = _DEFLATE.process_request_params(parameters, [])
            except NegotiationError:
                continue
            if isinstance(extension, PerMessageDeflate):
                return extension, build_extension([(name, agreed)]).encode()
    return None, b""


def _values(head: HttpHead, name: bytes) -> list[bytes]:
    return [value for each, value in head.fields if each == name]


def _text(value: bytes) -> str:
    return value.decode("latin-1")
