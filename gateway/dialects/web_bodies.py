"""Bodies of web requests and answers that pass in pieces: what is on its way. Pure."""

from __future__ import annotations

from collections import deque


class WebUpload:
    """A request body on its way."""

    __slots__ = ("held_bytes", "is_complete", "is_half_closed", "received_bytes", "waiting")

    def __init__(self, request: bytes) -> None:
        """`request`: what goes first."""
        self.waiting = deque([request])
        """Without credit; as much as the client has room for."""
        self.held_bytes = 0
        """Received, and its room not given back to the client."""
        self.received_bytes = 0
        self.is_complete = False
        self.is_half_closed = False


class WebDownload:
    """An answer that passes in pieces."""

    __slots__ = ("has_body", "left_bytes", "pattern", "status", "written")

    def __init__(self, status: int, pattern: str, left_bytes: int | None, has_body: bool) -> None:
        self.status = status
        self.pattern = pattern
        """Of the application's route."""
        self.left_bytes = left_bytes
        """Of the content-length that the application has said; None: it has said none."""
        self.has_body = has_body
        self.written = 0
        """Credit of pieces that were sent and not granted again yet."""
