"""The body of a request cut out of the bytes of its connection (RFC 9112 §6, §7). Pure."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from gateway.http1.head_syntax import END, read_fields
from gateway.http1.http1_limits import Http1Error, Http1Limits

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\0-\x08\x0a-\x1f\x7f]*)?").fullmatch
_LINE_USUAL_BYTES = 16
_CHUNKS_PER_TAKE = 32
"""So that a read full of tiny chunks does not keep the loop for long."""


class BodyReader(Protocol):
    """Knows where a body ends."""

    is_done: bool

    @property
    def left_bytes(self) -> int:
        """What is still to come, as far as that is known."""

    def take(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Bytes of the body from `data[position:]`, and the position behind what was read. Raises Http1Error.

        May stop early; nothing was read only if more bytes have to come.
        """


class SizedBody:
    """With a content-length, which may be 0."""

    __slots__ = ("is_done", "left_bytes")

    def __init__(self, size: int) -> None:
        self.left_bytes = size
        self.is_done = not size

    def take(self, data: bytes, position: int) -> tuple[bytes, int]:
        piece = data[position : position + self.left_bytes]
        self.left_bytes -= len(piece)
        self.is_done = not self.left_bytes
        return piece, position + len(piece)


class _Next(Enum):
    """What has to come next in a chunked body."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()


class ChunkedBody:
    """Chunks, and behind them trailers, which are checked and dropped."""

    __slots__ = ("_excess_bytes", "_limits", "_next", "is_done", "left_bytes")

    def __init__(self, limits: Http1Limits) -> None:
        self._limits = limits
        self._next = _Next.SIZE
        self.left_bytes = 0
        """Bytes of the present chunk that have not come."""
        self._excess_bytes = 0
        self.is_done = False

    def take(self, data: bytes, position: int) -> tuple[bytes, int]:
        pieces: list[bytes] = []
        for _ in range(_CHUNKS_PER_TAKE):
            before = position
            match self._next:
                case _Next.SIZE:
                    position = self._take_size(data, position)
                case _Next.DATA:
                    piece = data[position : position + self.left_bytes]
                    pieces.append(piece)
                    position += len(piece)
                    self.left_bytes -= len(piece)
                    if not self.left_bytes:
                        self._next = _Next.DATA_END
                case _Next.DATA_END:
                    position = self._take_data_end(data, position)
                case _Next.TRAILERS:
                    position = self._take_trailers(data, position)
            if position == before or self.is_done:
                break
        return b"".join(pieces), position

    def _take_size(self, data: bytes, position: int) -> int:
        limit = self._limits.chunk_line_max_bytes
        end = data.find(b"\r\n", position, position + limit + 2)
        if end < 0:
            if len(data) - position > limit + 1:
                raise Http1Error(400, f"The line before a chunk has more than {limit} bytes.")
            if b"\n" in data[position:]:
                raise Http1Error(400, "The line before a chunk does not end with CR LF.")
            return position
        line = _CHUNK_LINE(data, position, end)
        if line is None:
            raise Http1Error(400, "The line before a chunk is malformed.")
        size = int(line[1], 16)
        self._charge(end - position, size)
        self.left_bytes = size
        self._next = _Next.DATA if size else _Next.TRAILERS
        return end + 2

    def _charge(self, line_bytes: int, size: int) -> None:
        self._excess_bytes = max(0, self._excess_bytes + line_bytes - _LINE_USUAL_BYTES - 2 * size)
        if self._excess_bytes > self._limits.chunk_excess_max_bytes:
            raise Http1Error(400, "The lines between chunks are much longer than the chunks.")

    def _take_data_end(self, data: bytes, position: int) -> int:
        end = data[position : position + 2]
        if end == b"\r\n":
            self._next = _Next.SIZE
            return position + 2
        if end and end != b"\r":
            raise Http1Error(400, "A chunk is longer than its size.")
        return position

    def _take_trailers(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            self.is_done = True
            return position + 2
        limit = self._limits.fields_max_bytes
        end = data.find(END, position, position + limit + len(END))
        if end >= 0:
            read_fields(data[position : end + 2], self._limits)
            self.is_done = True
            return end + len(END)
        if len(data) - position > limit:
            raise Http1Error(431, f"The trailers have more than {limit} bytes.")
        return position


def body_reader(length: int | None, limits: Http1Limits, *, is_chunked: bool) -> BodyReader:
    """What reads the body of a request: see `ReceivedHead`."""
    return ChunkedBody(limits) if is_chunked else SizedBody(length or 0)
