"""`Http1Reader`: received bytes cut into requests, one after the other. Sans-I/O.

A client of a service sends the same head again and again, byte by byte, or at least the same fields behind another
request line. So what was made of both is kept by their bytes, as an HTTP/2 connection does with header blocks.
"""

from __future__ import annotations

from typing import TypeVar

from gateway.http1.body_framing import BodyReader, SizedBody, body_reader
from gateway.http1.head_syntax import (
    END,
    FieldLines,
    Origin,
    ReceivedHead,
    check_incomplete,
    check_lengths,
    read_head,
    read_lines,
)
from gateway.http1.http1_limits import Http1Limits

T = TypeVar("T")

_KEPT_MAX = 4
_KEPT_BYTES_MAX = 1_024
_NO_BODY = SizedBody(0)


class Http1Reader:
    """The receiving end of one connection. Nothing is read ahead: what follows a request stays as bytes."""

    __slots__ = ("_heads", "_limits", "_lines", "_origin", "_position", "_unread", "body", "dropped_bytes")

    def __init__(self, limits: Http1Limits, origin: Origin) -> None:
        self._limits = limits
        self._origin = origin
        self._heads: dict[bytes, ReceivedHead] = {}
        self._lines: dict[bytes, FieldLines] = {}
        self._unread = b""
        self._position = 0
        """Position of the first byte in `_unread` that was not read."""
        self.body: BodyReader = _NO_BODY
        """The body of the present request, or of the last one."""
        self.dropped_bytes = 0
        """Bytes of that body that were dropped."""

    @property
    def unread_bytes(self) -> int:
        return len(self._unread) - self._position

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        self._unread = self._unread[self._position :] + data if self.unread_bytes else data
        self._position = 0

    def read_head(self) -> ReceivedHead | None:
        """The next head, once the body before it is done; None if it is not complete. Raises Http1Error."""
        data, start = self._unread, self._position
        if start == len(data):
            return None
        if data.startswith(b"\r\n", start):
            # Some old clients send an empty line behind a body (RFC 9112 §2.2).
            start = self._position = start + 2
        end = data.find(END, start)
        if end < 0:
            check_incomplete(data[start:], self._limits)
            return None
        block = data[start : end + 2]
        received = self._heads.get(block)
        if received is None:
            received = self._read_new(block)
        self._position = end + len(END)
        self.dropped_bytes = 0
        if received.head.has_body:
            self.body = body_reader(received.head.content_length, self._limits, is_chunked=received.lines.is_chunked)
        else:
            self.body = _NO_BODY
        return received

    def read_body(self) -> bytes:
        """What has come of the body; empty if nothing has, or if `body` is done. Raises Http1Error."""
        while not self.body.is_done:
            before = self._position
            piece, self._position = self.body.take(self._unread, before)
            if piece or self._position == before:
                return piece
        return b""

    def drop_body(self) -> bool:
        """Read on in a body that is not wanted. Whether something of it had come. Raises Http1Error."""
        data = self.read_body()
        self.dropped_bytes += len(data)
        return bool(data) or self.body.is_done

    def read_all(self) -> bytes:
        """What has come, whatever it is: for a tunnel."""
        data = self._unread[self._position :]
        self._unread, self._position = b"", 0
        return data

    def _read_new(self, block: bytes) -> ReceivedHead:
        line_end = block.find(b"\r\n") + 2
        check_lengths(line_end - 2, len(block), self._limits)
        block_of_lines = block[line_end:]
        lines = self._lines.get(block_of_lines)
        if lines is None:
            lines = _keep(self._lines, block_of_lines, read_lines(block_of_lines, self._limits))
        return _keep(self._heads, block, read_head(block[:line_end], lines, self._limits, self._origin))


def _keep(kept: dict[bytes, T], block: bytes, meaning: T) -> T:
    if len(block) <= _KEPT_BYTES_MAX:
        if len(kept) >= _KEPT_MAX:
            kept.clear()
        kept[block] = meaning
    return meaning
