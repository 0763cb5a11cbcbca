"""Readers of Connect requests: a body that is one message, and messages in envelopes, in any codec. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gateway.web_rpc.envelope_reader import EnvelopeReader
from gateway.web_rpc.message_codec import MessageCodec
from mesh.rpc.message_reader import decompressed, too_large


class WholeBodyReader:
    """The body is the message. See RequestReader."""

    __slots__ = ("_codec", "_decompressed_max_bytes", "_encoding", "_has_ended", "_kept", "_max_bytes")

    def __init__(
        self, codec: MessageCodec, max_bytes: int, encoding: str = "", decompressed_max_bytes: int | None = None
    ) -> None:
        """See EnvelopeReader."""
        self._codec = codec
        self._decompressed_max_bytes = max_bytes if decompressed_max_bytes is None else decompressed_max_bytes
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._kept: bytes | bytearray = b""
        self._has_ended = False

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    def must_wait(self, go_on: Callable[[], None]) -> bool:
        return False

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
        data, self._kept = bytes(self._kept), b""
        # An empty body is never compressed (Connect protocol, Unary-Request).
        if data and self._encoding:
            data = decompressed(data, self._encoding, self._decompressed_max_bytes)
        return self._codec.decode(data)


class EncodedEnvelopeReader(EnvelopeReader):
    """The body is messages in envelopes. See RequestReader."""

    __slots__ = ("_codec",)

    def __init__(
        self, codec: MessageCodec, max_bytes: int, encoding: str = "", decompressed_max_bytes: int | None = None
    ) -> None:
        super().__init__(max_bytes, encoding, decompressed_max_bytes)
        self._codec = codec

    def next_message(self) -> bytes | None:
        message = super().next_message()
        return None if message is None else self._codec.decode(message)
