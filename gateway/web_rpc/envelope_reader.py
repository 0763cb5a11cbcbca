"""Messages in envelopes, as gRPC-Web and Connect have them: one byte of flags, four of length, the message. Pure.

Unlike gRPC's reader it makes a message only when asked: see RequestFlow.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.dialects.compression import RequestDecompression, ResponseCompression
from mesh.rpc.message_reader import MESSAGE_PREFIX_BYTES, MessageError, too_large
from mesh.rpc.status_codes import INTERNAL

_COMPRESSED = 1


class EnvelopeReader:
    """Cuts the messages of one request out of its body."""

    __slots__ = ("_cut_off_code", "_decompression", "_has_ended", "_kept", "_max_bytes")

    def __init__(
        self, max_bytes: int, decompression: RequestDecompression | None = None, cut_off_code: int = INTERNAL
    ) -> None:
        """`max_bytes`: of one message, as it comes. `decompression` None: no encoding was named.

        `cut_off_code`: of a body that ends in a message.
        """
        self._max_bytes = max_bytes
        self._decompression = decompression
        self._cut_off_code = cut_off_code
        self._kept = bytearray()
        self._has_ended = False

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        kept, decompression = self._kept, self._decompression
        if decompression is None or len(kept) < MESSAGE_PREFIX_BYTES or kept[0] != _COMPRESSED:
            return False
        is_complete = len(kept) - MESSAGE_PREFIX_BYTES >= int.from_bytes(kept[1:MESSAGE_PREFIX_BYTES], "big")
        return is_complete and decompression.must_wait(go_on)

    def feed(self, data: bytes) -> None:
        self._kept += data

    def end(self) -> None:
        self._has_ended = True

    def next_message(self) -> bytes | None:
        kept = self._kept
        if len(kept) >= MESSAGE_PREFIX_BYTES:
            flags, end = kept[0], MESSAGE_PREFIX_BYTES + int.from_bytes(kept[1:MESSAGE_PREFIX_BYTES], "big")
            self._check(flags, end - MESSAGE_PREFIX_BYTES)
            if end <= len(kept):
                message = bytes(memoryview(kept)[MESSAGE_PREFIX_BYTES:end])
                del kept[:end]
                # Nothing at all is not decompressed (Connect protocol, Unary-Request).
                if self._decompression is None or not (flags and message):
                    return message
                return self._decompression.plain(message)
        if kept and self._has_ended:
            raise MessageError(self._cut_off_code, "The last request message is not complete.")
        return None

    def _check(self, flags: int, length: int) -> None:
        if flags > _COMPRESSED:
            raise MessageError(INTERNAL, f"A request message begins with {flags}; only 0 and 1 are defined.")
        if flags and self._decompression is None:
            raise MessageError(INTERNAL, "A request message is compressed, but its encoding was not named.")
        if length > self._max_bytes:
            raise too_large(length, self._max_bytes)


def envelope(message: bytes | memoryview, flags: int = 0) -> bytes:
    """The message in its envelope."""
    return b"".join((bytes((flags,)), len(message).to_bytes(MESSAGE_PREFIX_BYTES - 1, "big"), message))


def sent_envelope(message: bytes | memoryview, compression: ResponseCompression | None) -> bytes:
    """A message of the response in its envelope, compressed where its method asks for it and it becomes smaller."""
    compressed = None if compression is None else compression.frame(message)
    return envelope(message) if compressed is None else compressed
