"""Exponential back-off: each pause is twice as long as the one before, up to a limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS_MAX = 30
"""More would only make numbers that are cut anyway."""


@dataclass(frozen=True, slots=True)
class Backoff:
    first_s: float
    max_s: float

    def pause_s(self, failures: int) -> float:
        """Seconds before the next try, after `failures` in a row; 0 without any."""
        if failures <= 0:
            return 0.0
        return min(self.first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX), self.max_s)
