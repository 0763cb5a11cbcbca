"""Messages out of the bytes of a stream: each has a prefix of five bytes, whether it is compressed and its length."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct

from mesh.http2.frame_format import MESSAGE_PREFIX_BYTES as MESSAGE_PREFIX_BYTES
from mesh.memory.buffer_pool import buffer_pool
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED

_PREFIX = Struct(">BL")
_LARGE_MIN_BYTES = 64 * 1024
ENCODINGS = ("gzip", "deflate")
"""What we decompress, besides identity."""
ACCEPTED_ENCODINGS = b"identity,deflate,gzip"

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LEVEL = 6


@dataclass(slots=True)
class MessageError(Exception):
    """A message that cannot be received; the call ends with this gRPC status."""

    code: int
    text: str


def whole_message(data: bytes, start: int, stop: int, max_bytes: int) -> bytes | None:
    """The message that `data[start:stop]` is, if it is exactly one, not compressed and not too long: as most are."""
    size = stop - start - MESSAGE_PREFIX_BYTES
    if 0 <= size <= max_bytes and _PREFIX.unpack_from(data, start) == (0, size):
        return data[start + MESSAGE_PREFIX_BYTES : stop]
    return None


class BegunMessage:
    """A large message whose end has not come: its bytes go where they will stay."""

    __slots__ = ("_view", "filled", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        self._view = buffer_pool().take(length)

    @classmethod
    def begin(cls, data: bytes, start: int, stop: int, max_bytes: int) -> BegunMessage | None:
        """The message of which `data[start:stop]` is the beginning, if it is large, not compressed and not too long."""
        first = start + MESSAGE_PREFIX_BYTES
        if stop < first or data[start]:
            return None
        length = int.from_bytes(data[start + 1 : first], "big")
        if not max(_LARGE_MIN_BYTES, stop - first) < length <= max_bytes:
            return None
        begun = cls(length)
        begun.add(data, first, stop)
        return begun

    @property
    def missing_bytes(self) -> int:
        return self.length - self.filled

    def add(self, data: bytes, start: int, stop: int) -> bool:
        """Take the next bytes. False, and they are not taken, if they are more than the message has."""
        filled = self.filled + stop - start
        if filled > self.length:
            return False
        self._view[self.filled : filled] = memoryview(data)[start:stop]
        self.filled = filled
        return True

    def whole(self) -> memoryview:
        """The message, once nothing is missing."""
        return self._view.toreadonly()


class CompressedMessage(bytes):
    """A message as it came, for `decompressed`."""


class MessageReader:
    """Cuts the messages of one direction of one stream out of its bytes."""

    __slots__ = ("_begun", "_encoding", "_keeps_compressed", "_max_bytes", "_wanted")

    def __init__(self, max_bytes: int, encoding: str = "", *, keeps_compressed: bool = False) -> None:
        """`max_bytes`: of one message, and of those together that one `feed` decompresses: a read of some kilobytes may
        hold many bombs. `keeps_compressed`: none is decompressed, but returned as a CompressedMessage.
        """
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._keeps_compressed = keeps_compressed
        self._begun = bytearray()
        """A message that is not complete: one buffer, as its pieces may be single bytes."""
        self._wanted = 0
        """Length of the message with its prefix, once that is here."""

    @property
    def is_between(self) -> bool:
        """Whether no message has begun."""
        return not self._begun

    @property
    def begun_bytes(self) -> int:
        """Bytes that are kept of a message that is not complete."""
        return len(self._begun)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that are complete with these bytes. Raises MessageError."""
        joined: bytes | memoryview = data
        if self._begun:
            self._begun += data
            if len(self._begun) < (self._wanted or MESSAGE_PREFIX_BYTES):
                return []
            joined = memoryview(self._begun)
        messages: list[bytes] = []
        position = 0
        room_bytes = self._max_bytes
        self._wanted = 0
        while len(joined) - position >= MESSAGE_PREFIX_BYTES:
            length = int.from_bytes(joined[position + 1 : position + MESSAGE_PREFIX_BYTES], "big")
            self._check(joined[position], length)
            end = position + MESSAGE_PREFIX_BYTES + length
            if end > len(joined):
                self._wanted = end - position
                break
            message = bytes(joined[position + MESSAGE_PREFIX_BYTES : end])
            if joined[position] and self._keeps_compressed:
                message = CompressedMessage(message)
            elif joined[position]:
                message = decompressed(message, self._encoding, room_bytes)
                room_bytes -= len(message)
            messages.append(message)
            position = end
        if self._begun or position < len(joined):
            self._begun = bytearray(joined[position:])
        return messages

    def _check(self, flag: int, length: int) -> None:
        if flag > 1:
            raise MessageError(INTERNAL, f"A message begins with {flag}; only 0 and 1 are defined.")
        if length > self._max_bytes:
            raise too_large(length, self._max_bytes)
        if flag and not self._encoding:
            raise MessageError(INTERNAL, "A message is compressed, but no grpc-encoding was sent.")
        if flag and self._encoding not in ENCODINGS:
            raise MessageError(UNIMPLEMENTED, not_read_here(self._encoding))


def not_read_here(encoding: str) -> str:
    """What is wrong with an encoding that is not one of ENCODINGS."""
    accepted = ACCEPTED_ENCODINGS.decode()
    return f"Messages compressed with {encoding[:40]!r} cannot be read here. Compress them with one of {accepted}."


def decompressed(data: bytes | bytearray | memoryview, encoding: str, max_bytes: int) -> bytes:
    """A message that was compressed with one of ENCODINGS. Raises MessageError, before it has more than `max_bytes`."""
    inflate = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = inflate.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise MessageError(INTERNAL, f"A message is not valid {encoding}: {error}") from None
    if len(message) > max_bytes:
        raise MessageError(
            RESOURCE_EXHAUSTED,
            f"Received message larger than max ({len(message)} vs. {max_bytes}) once it was decompressed."
            " Send it without compression, or in parts.",
        )
    if not inflate.eof or inflate.unused_data:
        raise MessageError(INTERNAL, f"A message is not exactly one whole {encoding} stream.")
    return message


def compressed(message: bytes | memoryview, encoding: str) -> bytes:
    """The message with one of ENCODINGS."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return deflate.compress(message) + deflate.flush()


def compressed_frame(message: bytes | memoryview, encoding: str) -> bytes:
    """The same with its prefix, as it is sent."""
    data = compressed(message, encoding)
    return b"\1" + len(data).to_bytes(MESSAGE_PREFIX_BYTES - 1, "big") + data


def too_large(length: int, max_bytes: int) -> MessageError:
    """What is raised for a message of `length` bytes."""
    return MessageError(RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {max_bytes})")
