"""What an HTTP/1.1 connection needs from time to time: an end where its client stalls, idles or has grown old. Pure.

As for HTTP/2 (mesh/http2/upkeep.py), a look at every connection each second or so replaces timers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from gateway.http1.http1_limits import Http1Limits
from mesh.http2.upkeep import UpkeepPolicy, goes_on, since


class Doing(Enum):
    """What a connection is about, as far as its client has a part in it."""

    OPENED = auto()
    """Nothing has come yet."""
    IDLE = auto()
    """Between two requests."""
    HEAD = auto()
    """A part of a head has come."""
    BODY = auto()
    """More of a body has to come, and there is room for it."""
    ANSWER = auto()
    """The client waits, or we have no room for its body."""
    FLUSHING = auto()
    """The last of what we have sent has not left yet."""
    LINGERING = auto()
    """All has left, and our side of the socket is closed."""


@dataclass(frozen=True, slots=True)
class Http1Vitals:
    """A connection as it is now."""

    doing: Doing
    is_paused: bool
    """The socket takes no more."""
    is_draining: bool
    has_left: bool = False
    """The client has closed the connection, which is not read now."""
    dropped_bytes: int = 0
    """Bytes of a body whose rest is not wanted."""


class Http1Upkeep(Enum):
    """What to do with a connection now."""

    SLOW_HEAD = "the client did not send a whole head in time"
    SLOW_BODY = "the client stopped in the middle of a body"
    IDLE = "the client sent no further request"
    SILENT = "the client sent nothing"
    UNREAD = "the client did not read"
    LEFT = "the client closed the connection"
    LINGERED = "the client had time to read the answer"
    DRAIN = "the connection is old"
    END_DRAIN = "the time for draining is over"


class Http1Clock:
    """When what was first seen at one connection."""

    __slots__ = (
        "_age_factor",
        "_doing",
        "_drain_since_at_s",
        "_paused_since_at_s",
        "_seen",
        "_since",
        "body_bytes",
        "opened_at_s",
        "pause_bytes",
        "read_at_s",
        "reads",
        "requests",
    )

    def __init__(self, now_s: float, age_factor: float = 1.0) -> None:
        """`age_factor`, near 1, differs between connections, so that those opened together do not end together."""
        self._age_factor = age_factor
        self.opened_at_s = now_s
        self._doing = Doing.OPENED
        self._since = now_s, 0
        """When the client began what it is doing or had gone on enough with it, and how much of bodies had come."""
        self.read_at_s = now_s
        """When bytes had come for the last time; as exact as the looks are frequent."""
        self._seen = (0, 0)
        self.reads = 0
        """How often bytes have come; the connection counts."""
        self.requests = 0
        """How many heads were complete; the connection counts."""
        self.body_bytes = 0
        """Bytes of all bodies without those that are dropped; exchanges count them."""
        self.pause_bytes = -1
        """The last place in them where the client need not go on at once; their exchanges say so."""
        self._paused_since_at_s: float | None = None
        self._drain_since_at_s: float | None = None

    def check(self, vitals: Http1Vitals, limits: Http1Limits, policy: UpkeepPolicy, now_s: float) -> Http1Upkeep | None:
        """What the connection needs now; call it again at the next look."""
        reads, requests = self._seen
        has_progress = requests != self.requests or (reads != self.reads and self._goes_on(vitals, limits))
        if vitals.doing is not self._doing or has_progress:
            self._doing, self._since = vitals.doing, (now_s, self.body_bytes + vitals.dropped_bytes)
        if reads != self.reads:
            self.read_at_s = now_s
        self._seen = self.reads, self.requests
        self._paused_since_at_s = since(self._paused_since_at_s, now_s, is_so=vitals.is_paused)
        self._drain_since_at_s = since(self._drain_since_at_s, now_s, is_so=vitals.is_draining)
        if vitals.has_left and vitals.doing in (Doing.BODY, Doing.ANSWER):
            return Http1Upkeep.LEFT
        if self._paused_since_at_s is not None and now_s - self._paused_since_at_s >= policy.unread_timeout_s:
            return Http1Upkeep.UNREAD
        if self._drain_since_at_s is not None and now_s - self._drain_since_at_s >= policy.drain_timeout_s:
            return Http1Upkeep.END_DRAIN
        rule = _RULES.get(self._doing)
        if rule is not None and now_s - self._since[0] >= rule[0](limits):
            return rule[1]
        if not vitals.is_draining and now_s - self.opened_at_s >= policy.age_max_s * self._age_factor:
            return Http1Upkeep.DRAIN
        return None

    def _goes_on(self, vitals: Http1Vitals, limits: Http1Limits) -> bool:
        """Whether the bytes that have come renew the time that the client has for what it does."""
        if vitals.doing is not Doing.BODY:
            # The others have one limit from their beginning to their end, however often bytes come.
            return vitals.doing is Doing.IDLE
        received_bytes = self.body_bytes + vitals.dropped_bytes
        may_pause = received_bytes <= self.pause_bytes
        return may_pause or goes_on(received_bytes, self.pause_bytes, self._since[1], limits.body_min_bytes)


_RULES: dict[Doing, tuple[Callable[[Http1Limits], float], Http1Upkeep]] = {
    Doing.OPENED: (lambda limits: limits.head_timeout_s, Http1Upkeep.SILENT),
    Doing.HEAD: (lambda limits: limits.head_timeout_s, Http1Upkeep.SLOW_HEAD),
    Doing.BODY: (lambda limits: limits.body_timeout_s, Http1Upkeep.SLOW_BODY),
    Doing.IDLE: (lambda limits: limits.keep_alive_timeout_s, Http1Upkeep.IDLE),
    Doing.FLUSHING: (lambda limits: limits.body_timeout_s, Http1Upkeep.UNREAD),
    Doing.LINGERING: (lambda limits: limits.linger_timeout_s, Http1Upkeep.LINGERED),
}
"""How long each may last."""
