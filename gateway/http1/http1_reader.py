"""`Http1Reader`: received bytes cut into requests, one after the other. Sans-I/O.

A client of a service sends the same head again and again, byte by byte. So what was made of a short head is kept by
its bytes, as an HTTP/2 connection does with header blocks.
"""

from __future__ import annotations

from gateway.http1.body_framing import BodyReader, SizedBody, body_reader
from gateway.http1.head_syntax import END, Origin, ReceivedHead, check_incomplete, read_head
from gateway.http1.http1_limits import Http1Limits

_HEADS_KEPT = 4
_HEAD_KEPT_BYTES_MAX = 1_024
_NO_BODY = SizedBody(0)


class Http1Reader:
    """The receiving end of one connection. Nothing is read ahead: what follows a request stays as bytes."""

    __slots__ = ("_kept", "_limits", "_origin", "_position", "_unread", "body")

    def __init__(self, limits: Http1Limits, origin: Origin) -> None:
        self._limits = limits
        self._origin = origin
        self._kept: dict[bytes, ReceivedHead] = {}
        self._unread = b""
        self._position = 0
        """Of the first byte in `_unread` that was not read."""
        self.body: BodyReader = _NO_BODY
        """Of the present request, or of the last."""

    @property
    def unread_bytes(self) -> int:
        return len(self._unread) - self._position

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        self._unread = self._unread[self._position :] + data if self.unread_bytes else data
        self._position = 0

    def read_head(self) -> ReceivedHead | None:
        """The next head, once the body before it is done; None if it is not complete. Raises HttpFault."""
        data, start = self._unread, self._position
        if start == len(data):
            return None
        if data.startswith(b"\r\n", start):
            # Some old clients send an empty line behind a body (RFC 9112 §2.2).
            start += 2
        end = data.find(END, start)
        if end < 0:
            check_incomplete(data[start:], self._limits)
            return None
        block = data[start : end + 2]
        received = self._kept.get(block)
        if received is None:
            received = read_head(block, self._limits, self._origin)
            self._keep(block, received)
        self._position = end + len(END)
        if received.head.has_body:
            self.body = body_reader(received.head.content_length, self._limits, is_chunked=received.is_chunked)
        else:
            self.body = _NO_BODY
        return received

    def read_body(self) -> bytes:
        """What has come of the body; empty if nothing has, or if `body` is done. Raises HttpFault."""
        while not self.body.is_done:
            before = self._position
            piece, self._position = self.body.take(self._unread, before)
            if piece or self._position == before:
                return piece
        return b""

    def read_all(self) -> bytes:
        """What has come, whatever it is: for a tunnel."""
        data = self._unread[self._position :]
        self._unread, self._position = b"", 0
        return data

    def _keep(self, block: bytes, received: ReceivedHead) -> None:
        if len(block) <= _HEAD_KEPT_BYTES_MAX:
            if len(self._kept) >= _HEADS_KEPT:
                self._kept.clear()
            self._kept[block] = received
