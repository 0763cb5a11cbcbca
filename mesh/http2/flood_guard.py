"""`FloodGuard`: frames that cost us work and bring none, against a budget."""

from __future__ import annotations

from collections.abc import Callable

from mesh.http2.frame_format import ConnectionFault, ErrorCode
from mesh.http2.limits import Limits


class FloodGuard:
    """A token bucket that refills with time and with useful work, so that only a peer that does nothing else runs dry.

    It covers what is known as rapid reset, and floods of PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty frames.
    """

    __slots__ = ("_clock", "_filled_at_s", "_limits", "_tokens", "useful")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._limits = limits
        self._clock = clock
        self._tokens = float(limits.control_burst)
        self._filled_at_s = clock()
        self.useful = 0
        """Messages and answered streams since the last charge. Others add to it."""

    def charge(self, what: str) -> None:
        """Count one frame. Raises ConnectionFault when the budget is used up."""
        self._tokens -= 1
        if self._tokens < 0:
            self._refill()
            if self._tokens < 0:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many frames of little use, the last: {what}")

    def _refill(self) -> None:
        now_s = self._clock()
        earned = (now_s - self._filled_at_s) * self._limits.control_per_s + self.useful
        self._tokens = min(self._limits.control_burst, self._tokens + earned)
        self._filled_at_s = now_s
        self.useful = 0
