"""The reader of a unary Connect request: the body is its message. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gateway.dialects.compression import RequestDecompression
from mesh.rpc.message_reader import too_large


class WholeBodyReader:
    """The message is still in the codec of the client. See RequestReader."""

    __slots__ = ("_decompression", "_has_ended", "_kept", "_max_bytes")

    def __init__(self, max_bytes: int, decompression: RequestDecompression | None = None) -> None:
        """See EnvelopeReader."""
        self._decompression = decompression
        self._max_bytes = max_bytes
        self._kept: bytes | bytearray = b""
        self._has_ended = False

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        # An empty body is never compressed (Connect protocol, Unary-Request).
        return bool(
            self._has_ended and self._kept and self._decompression is not None and self._decompression.must_wait(go_on)
        )

    def feed(self, data: bytes) -> None:
        if len(self._kept) + len(data) > self._max_bytes:
            raise too_large(len(self._kept) + len(data), self._max_bytes)
        if not self._kept:
            self._kept = data
        elif isinstance(self._kept, bytearray):
            self._kept += data
        else:
            self._kept = bytearray(self._kept + data)

    def end(self) -> None:
        self._has_ended = True

    def next_message(self) -> bytes | None:
        if not self._has_ended:
            return None
        self._has_ended = False
        data, self._kept = self._kept, b""
        return self._decompression.plain(data) if data and self._decompression is not None else bytes(data)
