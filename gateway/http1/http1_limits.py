"""What an HTTP/1.1 connection lets its client do, and the fault of a client that does more. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Limits:
    """Sizes in bytes, times in seconds. Whole bodies are limited by the dialects, on HTTP/2 as well."""

    target_max_bytes: int = 8 * 1024
    """The path with its query. More is answered with 414."""
    fields_max_bytes: int = 16 * 1024
    """All lines of header fields together; the same for trailers. More is answered with 431."""
    fields_max: int = 100
    """Lines of header fields; the same for trailers. More is answered with 431."""
    body_window_bytes: int = 256 * 1024
    """What a client may send ahead of what the receiver has dealt with."""
    chunk_line_max_bytes: int = 1024
    """The line before each chunk: its size and extensions."""
    chunk_excess_max_bytes: int = 16 * 1024
    """By how much the lines between chunks may exceed the chunks themselves, as those of tiny chunks do."""
    pipelined_max_bytes: int = 64 * 1024
    """Read while a request is in progress, so that a client that leaves is noticed."""
    discarded_max_bytes: int = 64 * 1024
    """Rest of a body that is read after an early answer to keep the connection. With more it is closed."""
    head_timeout_s: float = 10.0
    """From the first byte of a head to its end; also from the opening of a connection to its first byte."""
    body_timeout_s: float = 60.0
    """Between two reads of a body."""
    body_min_bytes: int = 1
    """Reads of less than this, in that time, do not count, but where the client need not go on at once."""
    keep_alive_timeout_s: float = 90.0
    """Between two requests."""
    linger_timeout_s: float = 2.0
    """How long a client that still sends may take to read the answer that has ended its connection."""


class Http1Error(Exception):
    """The client has sent what is not HTTP, or too much of it: it gets this status, and the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
