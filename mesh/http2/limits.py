"""What a connection lets its peer do, the frames that say so, and what it may buffer."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import FRAME_BYTES_LIMIT, FRAME_BYTES_MIN, WINDOW_DEFAULT, WINDOW_MAX, Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Announced in SETTINGS where HTTP/2 has a parameter for it, else enforced only."""

    streams_max: int = 1_000
    """Streams that the peer may have open at once; more are refused."""
    stream_window_bytes: int = 256 * 1024
    """Bytes of one stream that the peer may send ahead of what was taken from it."""
    connection_window_bytes: int = 4 * 1024 * 1024
    """The same for all streams of the connection together; given back as bytes arrive."""
    frame_max_bytes: int = FRAME_BYTES_MIN
    header_list_max_bytes: int = 16 * 1024
    """Names, values and 32 bytes a field. A request with more is answered, not read."""
    header_block_max_bytes: int = 64 * 1024
    """Encoded bytes of one header block, over all its frames. More ends the connection."""
    continuations_max: int = 8
    """CONTINUATION frames of one header block."""
    control_burst: int = 1_500
    """Frames that cost work and bring none (PING, SETTINGS, resets of unanswered streams, empty DATA, ...) at once.

    More than `streams_max`, so that a client may cancel all its calls.
    """
    control_per_s: float = 100.0
    """The same, lasting. Every message sent and every answered stream allows three more."""
    takes_websockets: bool = False
    """A server: clients may open them by CONNECT (RFC 8441)."""
    rapid_reset_s: float = 0.1
    """Streams that have lasted this long may be reset at any rate: they were bounded by `streams_max`."""
    acks_owed_max: int = 1_000
    """Answers to PING and SETTINGS that wait for a peer that does not read."""

    def __post_init__(self) -> None:
        # A peer may use HTTP/2's defaults until it has read our SETTINGS, so they are the least that we can allow.
        for name, least, most in (
            ("stream_window_bytes", WINDOW_DEFAULT, WINDOW_MAX),
            ("connection_window_bytes", WINDOW_DEFAULT, WINDOW_MAX),
            ("frame_max_bytes", FRAME_BYTES_MIN, FRAME_BYTES_LIMIT),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; choose {least} to {most}")


class BufferBudget:
    """Bytes that all connections of a server buffer together, and how many more one of them may.

    A connection may have as much as it leaves to the others: the first half of the budget, the next half of what is
    left, and so on. So no single connection takes it all.
    """

    __slots__ = ("max_bytes", "used_bytes")

    def __init__(self, max_bytes: float = float("inf")) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def allows(self, own_bytes: int, more_bytes: int) -> bool:
        """Whether a connection that uses `own_bytes` of it may use `more_bytes` more."""
        return own_bytes + more_bytes <= self.max_bytes - self.used_bytes - more_bytes


class BufferShare:
    """What one connection uses of a budget."""

    __slots__ = ("budget", "used_bytes")

    def __init__(self, budget: BufferBudget) -> None:
        self.budget = budget
        self.used_bytes = 0

    def has_room(self, more_bytes: int) -> bool:
        return self.budget.allows(self.used_bytes, more_bytes)

    def add(self, more_bytes: int) -> None:
        """Count them, also without room; less than zero gives some back."""
        self.used_bytes += more_bytes
        self.budget.used_bytes += more_bytes


def opening_frames(limits: Limits, *, is_server: bool) -> bytes:
    """What a connection sends first."""
    values = {
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        Setting.MAX_FRAME_SIZE: limits.frame_max_bytes,
        Setting.MAX_HEADER_LIST_SIZE: limits.header_list_max_bytes,
    }
    if is_server:
        values[Setting.MAX_CONCURRENT_STREAMS] = limits.streams_max
        if limits.takes_websockets:
            values[Setting.ENABLE_CONNECT_PROTOCOL] = 1
    else:
        values[Setting.ENABLE_PUSH] = 0
    frames = wire.settings_frame(values)
    if limits.connection_window_bytes > WINDOW_DEFAULT:
        frames += wire.window_update_frame(0, limits.connection_window_bytes - WINDOW_DEFAULT)
    return frames if is_server else wire.PREFACE + frames
