"""Bodies of web requests and answers that pass in pieces: what is on its way. Pure."""

from __future__ import annotations

from collections import deque

from mesh.http2.limits import BufferShare


class WebUpload:
    """A request body on its way."""

    __slots__ = ("is_complete", "is_half_closed", "received_bytes", "waiting")

    def __init__(self, request: bytes) -> None:
        """`request`: what goes first."""
        self.waiting = deque([request])
        """Without credit; as much as the client has room for."""
        self.received_bytes = 0
        self.is_complete = False
        self.is_half_closed = False

    def add(self, data: bytes, max_bytes: int) -> bool:
        """Bytes have come. False if the body has more than `max_bytes` with them."""
        self.received_bytes += len(data)
        self.waiting.append(data)
        return self.received_bytes <= max_bytes


class WebDownload:
    """An answer that passes in pieces, or one that no client waits for."""

    __slots__ = ("has_body", "left_bytes", "pattern", "status", "written")

    def __init__(self, status: int, pattern: str, left_bytes: int | None, has_body: bool) -> None:
        self.status = status
        self.pattern = pattern
        """The pattern of the application's route."""
        self.left_bytes = left_bytes
        """Bytes that the application's content-length still announces; None: it has given none."""
        self.has_body = has_body
        self.written = 0
        """Credit of pieces that were sent and not granted again yet."""


class HeldBody:
    """What waits of a request's body in the gateway, counted in what its connection may buffer."""

    __slots__ = ("_share", "size", "whole")

    def __init__(self, share: BufferShare) -> None:
        self._share = share
        self.size = 0
        self.whole = b""
        """The bytes themselves, if the request is sent in one frame."""

    def hold(self, more_bytes: int) -> bool:
        """False, and not counted, if there is no room for them."""
        if not self._share.has_room(more_bytes):
            return False
        self._share.add(more_bytes)
        self.size += more_bytes
        return True

    def release(self) -> int:
        """Nothing waits any more. Returns how much did."""
        self.whole = b""
        size, self.size = self.size, 0
        self._share.add(-size)
        return size
