"""`FloodGuard`: frames that cost us work and bring none, against a budget."""

from __future__ import annotations

from collections.abc import Callable

from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.limits import Limits

_USEFUL_WORTH = 3
"""Frames that an honest peer may well send with one message: two WINDOW_UPDATEs, and a PING or a cancelled call."""


class FloodGuard:
    """A token bucket that refills with time and with useful work, so that only a peer that does little else runs dry.

    It covers what is known as rapid reset, and floods of PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty frames.
    """

    __slots__ = ("_clock", "_filled_at_s", "_limits", "_tokens", "_widened_id", "acks_owed", "useful")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._limits = limits
        self._clock = clock
        self._tokens = float(limits.control_burst)
        self._filled_at_s = clock()
        self._widened_id = 0
        self.acks_owed = 0
        """Answers to PING and SETTINGS that the socket has not taken."""
        self.useful = 0
        """DATA frames sent, and streams that ended well or lasted, since the last refill. Others add to it.

        What is received does not count, else a request before each reset would make a rapid reset free.
        """

    def charge(self, what: str, frames: int = 1) -> None:
        """Count frames, or work worth that many. Raises Http2Error when the budget is used up."""
        self._tokens -= frames
        if self._tokens < 0:
            self._refill()
            if self._tokens < 0:
                raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"too many frames of little use, the last: {what}")

    def charge_small_update(self, stream_id: int) -> None:
        """Count a WINDOW_UPDATE of a few bytes. The first one of a stream is free.

        Stock clients send one with each request, in the order of their streams, and streams have limits of their own.
        """
        if stream_id > self._widened_id:
            self._widened_id = stream_id
        else:
            self.charge("WINDOW_UPDATE")

    def owe_ack(self) -> None:
        """Count an answer that has to wait for the socket. Raises Http2Error when there are too many of them."""
        self.acks_owed += 1
        if self.acks_owed > self._limits.acks_owed_max:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "answers to PING and SETTINGS are not read")

    def _refill(self) -> None:
        now_s = self._clock()
        earned = (now_s - self._filled_at_s) * self._limits.control_per_s + self.useful * _USEFUL_WORTH
        self._tokens = min(self._limits.control_burst, self._tokens + earned)
        self._filled_at_s = now_s
        self.useful = 0
