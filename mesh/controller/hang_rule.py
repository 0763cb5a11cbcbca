"""When a loop hangs: it stands still for many checks in a row that were made on time. Pure.

A machine that is busy, suspended or debugged delays loops too, and there the end of a process helps no one. So only
those checks count that were made on time, while the thread of the loop did not wait for a processor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_LATE_FACTOR = 2.0
"""A check that comes after this many intervals is late: the process was stopped, or the machine is overloaded."""
_STARVED_SHARE = 0.5
"""Share of an interval that the thread of the loop has to wait for a processor to count as starved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopReading:
    """What one check sees of a loop."""

    at_s: float
    beats: int
    """How often the loop has shown that it runs."""
    starved_s: float = 0.0
    """How long its thread was ready to run in all, but had no processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedLoop:
    """A loop after its last check."""

    last: LoopReading
    interval_s: float
    """Between two checks."""
    missed: int = 0
    """Checks in a row that saw it stand still."""

    @property
    def still_s(self) -> float:
        """How long it has stood still, of the time that counts."""
        return self.missed * self.interval_s

    def checked(self, reading: LoopReading) -> WatchedLoop:
        """The loop after one more check."""
        if reading.beats != self.last.beats:
            return replace(self, last=reading, missed=0)
        return replace(self, last=reading, missed=self.missed + self._counts(reading))

    def _counts(self, reading: LoopReading) -> bool:
        is_late = reading.at_s - self.last.at_s > _LATE_FACTOR * self.interval_s
        is_starved = reading.starved_s - self.last.starved_s > _STARVED_SHARE * self.interval_s
        return not (is_late or is_starved)
