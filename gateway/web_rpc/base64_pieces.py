"""Base64 that arrives in pieces, each of which may end with padding, as gRPC-Web sends it as text. Pure."""

from __future__ import annotations

from binascii import Error, a2b_base64

from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import INTERNAL

_GROUP = 4


class Base64Pieces:
    """Decodes a stream of base64."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""
        """Fewer characters than one group has."""

    def feed(self, data: bytes) -> bytes:
        """The bytes that are complete with these characters. Raises MessageError."""
        text = self._rest + data
        whole = len(text) - len(text) % _GROUP
        self._rest = text[whole:]
        pieces = []
        start = 0
        while start < whole:
            padding = text.find(b"=", start, whole)
            stop = whole if padding < 0 else padding - padding % _GROUP + _GROUP
            pieces.append(_decoded(text[start:stop]))
            start = stop
        return b"".join(pieces)

    def end(self) -> None:
        """No more characters follow. Raises MessageError for a group that is not complete."""
        if self._rest:
            raise MessageError(INTERNAL, "The base64 of the request is not complete: groups have four characters.")


def _decoded(text: bytes) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True)
    except Error as error:
        raise MessageError(INTERNAL, f"The request is not valid base64: {error}") from None
