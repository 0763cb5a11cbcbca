"""What a connection needs from time to time: keepalive, and an end where its peer stalls, idles or has grown old. Pure.

A look at every connection each second or so replaces timers and clock reads of single calls and frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from mesh.http2.stream import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepPolicy:
    """Times in seconds; infinity turns a rule off."""

    keepalive_after_s: float = 60.0
    """A peer that has sent nothing for this long gets a PING."""
    keepalive_timeout_s: float = 20.0
    """A PING without any bytes from the peer after this long means that the peer is gone."""
    handshake_timeout_s: float = 10.0
    """For what a peer must send promptly: preface, SETTINGS, and header blocks from their first frame to the last."""
    unread_timeout_s: float = 60.0
    """How long a peer may leave everything unread that the socket could not take."""
    backlog_bytes: int = 16 * 1024 * 1024
    """More than this may wait for a peer only as long as it takes as much within `backlog_timeout_s`."""
    backlog_timeout_s: float = 30.0
    body_timeout_s: float = float("inf")
    """How long a peer may pause in the middle of what a stream of it has to bring, though there is room for it."""
    body_min_bytes: int = 1
    """A stream that brings less than this in that time, and does not end, pauses: bytes that drip hold a call too."""
    linger_timeout_s: float = 2.0
    """How long a client may go on with a request that is answered already."""
    idle_timeout_s: float = float("inf")
    """A connection without a stream for this long is closed."""
    age_max_s: float = float("inf")
    """A connection about this old is drained, so that clients spread again over the gateways behind a balancer."""
    drain_timeout_s: float = 30.0
    """From the beginning of a drain to the end of the streams that are left."""
    goaway_delay_s: float = 1.0
    """Longest wait for the peer to learn of a drain before its new streams are refused."""


class Upkeep(Enum):
    """What to do with a connection now."""

    PING = "the peer is silent"
    GONE = "keepalive: the peer did not answer"
    SLOW = "the peer did not send a whole preface or header block in time"
    UNREAD = "the peer did not read"
    BEHIND = "the peer took too little of what waits for it"
    DRAIN = "the connection is old or idle"
    FINISH_DRAIN = "the peer had time to learn of the drain"
    END_DRAIN = "the time for draining is over"


@dataclass(frozen=True, slots=True)
class Vitals:
    """A connection as it is now."""

    reads: int
    """How often bytes have come; any number that grows with them."""
    streams: int
    awaited_stream: int | None
    """The stream whose header block is incomplete, 0 for preface and SETTINGS; None: the peer owes nothing."""
    is_paused: bool
    """The socket takes no more."""
    is_draining: bool
    pending_bytes: int = 0
    """Bytes of messages that wait for a window or the socket."""
    sent_bytes: int = 0
    """Bytes of messages that had to wait and have left; never falls."""


class UpkeepClock:
    """When what was first seen at one connection."""

    __slots__ = (
        "_age_factor",
        "_awaited_stream",
        "_awaits_since_at_s",
        "_behind_sent_bytes",
        "_behind_since_at_s",
        "_drain_since_at_s",
        "_idle_since_at_s",
        "_paused_since_at_s",
        "_pinged_at_s",
        "_reads",
        "opened_at_s",
        "read_at_s",
    )

    def __init__(self, now_s: float, age_factor: float = 1.0) -> None:
        """`age_factor`, near 1, differs between connections, so that those opened together do not end together."""
        self._age_factor = age_factor
        self.opened_at_s = now_s
        self.read_at_s = now_s
        """When bytes had come for the last time; as exact as the looks are frequent."""
        self._reads = 0
        self._pinged_at_s: float | None = None
        self._awaited_stream: int | None = None
        self._awaits_since_at_s: float | None = None
        self._paused_since_at_s: float | None = None
        self._idle_since_at_s: float | None = None
        self._drain_since_at_s: float | None = None
        self._behind_since_at_s: float | None = None
        self._behind_sent_bytes = 0

    @property
    def awaits_pong(self) -> bool:
        """Whether a PING is on its way to a peer that has sent nothing since."""
        return self._pinged_at_s is not None

    def check(self, vitals: Vitals, policy: UpkeepPolicy, now_s: float) -> Upkeep | None:
        """What the connection needs now, the most urgent first; call it again at the next look."""
        if vitals.reads != self._reads:
            self._reads, self.read_at_s, self._pinged_at_s = vitals.reads, now_s, None
        if vitals.awaited_stream != self._awaited_stream:
            # A busy peer may be found in the middle of headers at each look, but of other ones.
            self._awaited_stream, self._awaits_since_at_s = vitals.awaited_stream, None
        self._awaits_since_at_s = since(self._awaits_since_at_s, now_s, is_so=vitals.awaited_stream is not None)
        self._paused_since_at_s = since(self._paused_since_at_s, now_s, is_so=vitals.is_paused)
        self._idle_since_at_s = since(self._idle_since_at_s, now_s, is_so=not vitals.streams)
        self._drain_since_at_s = since(self._drain_since_at_s, now_s, is_so=vitals.is_draining)
        if _lasts(self._awaits_since_at_s, policy.handshake_timeout_s, now_s):
            return Upkeep.SLOW
        if _lasts(self._paused_since_at_s, policy.unread_timeout_s, now_s):
            return Upkeep.UNREAD
        if _lasts(self._behind_since(vitals, policy, now_s), policy.backlog_timeout_s, now_s):
            return Upkeep.BEHIND
        if _lasts(self._pinged_at_s, policy.keepalive_timeout_s, now_s):
            return Upkeep.GONE
        if _lasts(self._drain_since_at_s, policy.drain_timeout_s, now_s):
            return Upkeep.END_DRAIN
        if self._pinged_at_s is None and _lasts(self.read_at_s, policy.keepalive_after_s, now_s):
            self._pinged_at_s = now_s
            return Upkeep.PING
        if vitals.is_draining:
            if _lasts(self._drain_since_at_s, policy.goaway_delay_s, now_s):
                return Upkeep.FINISH_DRAIN
        elif _lasts(self.opened_at_s, policy.age_max_s * self._age_factor, now_s) or _lasts(
            self._idle_since_at_s, policy.idle_timeout_s, now_s
        ):
            return Upkeep.DRAIN
        return None

    def _behind_since(self, vitals: Vitals, policy: UpkeepPolicy, now_s: float) -> float | None:
        """Since when too much waits, and the peer has taken too little of it."""
        is_behind = vitals.pending_bytes > policy.backlog_bytes
        taken_bytes = vitals.sent_bytes - self._behind_sent_bytes
        if self._behind_since_at_s is None or not is_behind or taken_bytes >= policy.backlog_bytes:
            self._behind_since_at_s = now_s if is_behind else None
            self._behind_sent_bytes = vitals.sent_bytes
        return self._behind_since_at_s


class BodyWatch:
    """Since when which streams bring too little of what they have to bring."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Stream, tuple[int, float]] = {}
        """From how many bytes on, and since when."""

    def stalled(self, bodies: Iterable[Stream], policy: UpkeepPolicy, now_s: float) -> list[Stream]:
        """Those that have brought too little for too long, of the ones that have to bring something now."""
        before, self._seen = self._seen, {}
        for stream in bodies:
            known = before.get(stream)
            if known is None or goes_on(stream.received_bytes, stream.pause_bytes, known[0], policy.body_min_bytes):
                known = stream.received_bytes, now_s
            self._seen[stream] = known
        return [stream for stream, (_, since_at_s) in self._seen.items() if now_s - since_at_s >= policy.body_timeout_s]


def goes_on(received_bytes: int, pause_bytes: int, from_bytes: int, min_bytes: int) -> bool:
    """Whether enough has come since `from_bytes`, or there was a place where the peer might pause."""
    return received_bytes - from_bytes >= min_bytes or pause_bytes > from_bytes


def since(before_at_s: float | None, now_s: float, *, is_so: bool) -> float | None:
    """Since when something is so, `before_at_s` being what this was before; None: it is not."""
    if not is_so:
        return None
    return now_s if before_at_s is None else before_at_s


def _lasts(since_at_s: float | None, limit_s: float, now_s: float) -> bool:
    return since_at_s is not None and now_s - since_at_s >= limit_s
