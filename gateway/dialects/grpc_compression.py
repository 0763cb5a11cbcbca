"""The compression of one response: what its method asks for, as far as its client accepts it."""

from __future__ import annotations

from collections.abc import Callable

from mesh.http2.hpack_encoder import encode_field
from mesh.rpc.message_reader import ENCODINGS, PREFIX_BYTES, compressed

_MESSAGE_MAX_BYTES = 1024 * 1024
"""A longer message is sent as it is: to compress it would hold up all calls of the gateway for tens of milliseconds."""


class ResponseCompression:
    """Says nothing until the method does; then messages that become smaller are compressed."""

    __slots__ = ("_is_accepted", "_skips_next", "encoding")

    def __init__(self, is_accepted: Callable[[str], bool]) -> None:
        """`is_accepted`: whether the client can read an encoding."""
        self._is_accepted = is_accepted
        self._skips_next = False
        self.encoding = ""
        """What the head of the response has to name; empty: nothing is compressed."""

    @property
    def header(self) -> bytes:
        """The field that tells a client of gRPC, for the headers of the response."""
        return encode_field(b"grpc-encoding", self.encoding.encode()) if self.encoding else b""

    def choose(self, encoding: str) -> None:
        """Before the headers of the response are sent."""
        self.encoding = encoding if encoding in ENCODINGS and self._is_accepted(encoding) else ""

    def skip_next(self) -> None:
        """The next message is to be sent as it is."""
        self._skips_next = True

    def compress(self, message: bytes | memoryview) -> bytes | None:
        """The next message compressed; None if it is to be sent as it is."""
        skips, self._skips_next = self._skips_next, False
        if skips or not self.encoding or len(message) > _MESSAGE_MAX_BYTES:
            return None
        data = compressed(message, self.encoding)
        return data if len(data) < len(message) else None

    def frame(self, message: bytes | memoryview) -> bytes | None:
        """The same with the prefix of gRPC."""
        data = self.compress(message)
        return None if data is None else b"\1" + len(data).to_bytes(PREFIX_BYTES - 1, "big") + data
