"""`Meter`: how much one client calls, or one method is called, against its limit. Pure: the time is passed in.

The rate is a token bucket: it holds up to `burst` calls, fills at `rate_per_s`, and each call takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a meter allows."""

    rate_per_s: float = 0.0
    """0: any rate."""
    burst: float = 1.0
    """At least 1."""
    concurrent_max: int = 0
    """0: any number."""


class Meter:
    """One count. Calls `take` when a call begins and `give_back` when it ends."""

    __slots__ = ("_filled_at_s", "_level", "in_progress", "is_forgotten", "limit")

    def __init__(self, limit: Limit, now_s: float) -> None:
        self.limit = limit
        self.in_progress = 0
        self.is_forgotten = False
        """The table has dropped this meter to make room: its holder has to ask the table again."""
        self._level = limit.burst
        self._filled_at_s = now_s

    def __repr__(self) -> str:
        return f"<Meter {self.limit} in progress: {self.in_progress}>"

    def is_idle(self, now_s: float) -> bool:
        """Whether a new meter would answer the same."""
        return not self.in_progress and self._level_at(now_s) >= self.limit.burst

    def wait_s(self, now_s: float) -> float | None:
        """0 if one more call is allowed now, otherwise the time until the rate allows it; None: when a call ends."""
        limit = self.limit
        if limit.concurrent_max and self.in_progress >= limit.concurrent_max:
            return None
        if not limit.rate_per_s:
            return 0.0
        return max(0.0, (1.0 - self._level_at(now_s)) / limit.rate_per_s)

    def take(self, now_s: float) -> None:
        """A call begins, which `wait_s` has allowed."""
        self._level = self._level_at(now_s) - 1.0
        self._filled_at_s = max(now_s, self._filled_at_s)
        self.in_progress += 1

    def give_back(self) -> None:
        """A call has ended."""
        self.in_progress -= 1

    def _level_at(self, now_s: float) -> float:
        # A clock that goes back adds nothing.
        gained = max(0.0, now_s - self._filled_at_s) * self.limit.rate_per_s
        return min(self.limit.burst, self._level + gained)


_LOOKED_AT_MAX = 16


class MeterTable:
    """The meters of many keys, a limited number of them.

    A meter that is idle can be forgotten without effect. Where none of the oldest is, all new keys together share one
    meter, so that many invented keys get no more than one of them.
    """

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._meters: dict[Hashable, Meter] = {}
        self._shared: dict[Limit, Meter] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def meter(self, key: Hashable, limit: Callable[[], Limit], now_s: float) -> Meter:
        """The meter of `key`, made with `limit()` if there is none."""
        meter = self._meters.get(key)
        if meter is not None:
            return meter
        allowed = limit()
        if len(self._meters) >= self._entries_max and not self._forget_idle(now_s):
            return self._shared.setdefault(allowed, Meter(allowed, now_s))
        meter = self._meters[key] = Meter(allowed, now_s)
        return meter

    def _forget_idle(self, now_s: float) -> bool:
        """Make room for one entry, if one of the oldest is idle."""
        oldest = [key for key, _ in zip(self._meters, range(_LOOKED_AT_MAX), strict=False)]
        for key in oldest:
            meter = self._meters.pop(key)
            if meter.is_idle(now_s):
                meter.is_forgotten = True
                return True
            # The next search looks at others.
            self._meters[key] = meter
        return False
