"""What a connection lets its peer do."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.http2.frame_format import FRAME_BYTES_MIN


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
    pending_max_bytes: int = 16 * 1024 * 1024
    """Bytes for a peer that does not take them, beyond one message; a response above that is given up."""
    control_burst: int = 1_000
    """Frames that cost work and bring none (PING, SETTINGS, resets of unanswered streams, empty DATA, ...) at once."""
    control_per_s: float = 100.0
    """The same, lasting. Every message and every answered stream allows one more."""
    acks_owed_max: int = 1_000
    """Answers to PING and SETTINGS that wait for a peer that does not read."""
