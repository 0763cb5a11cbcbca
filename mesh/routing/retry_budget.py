"""The budget of retries: a share of the router's calls, so that retries cannot multiply an overload. Pure."""

from __future__ import annotations

from mesh.options.calls.retry_option import RetryPolicy

_RESERVE = 10.0
"""A caller with few calls may retry, too."""
_SAVED_CALLS_MAX = 1000
"""Calls whose shares are saved up at most."""


class RetryBudget:
    """Nothing is counted per call: a retry passes in how many calls there have been."""

    __slots__ = ("_calls", "_saved")

    def __init__(self) -> None:
        self._saved = _RESERVE
        self._calls = 0
        """When the last retry was asked for."""

    def allows(self, policy: RetryPolicy, code: int, attempts: int, calls: int) -> bool:
        """Whether a call that failed with this code after that many attempts may be sent again. Yes costs budget."""
        return code in policy.codes and attempts < policy.attempts and self.take(policy.budget, calls)

    def take(self, share: float, calls: int) -> bool:
        """Whether one more retry is allowed: `share` per call, of which there have been `calls`."""
        earned = share * (calls - self._calls)
        self._calls = calls
        self._saved = min(self._saved + earned, _RESERVE + share * _SAVED_CALLS_MAX)
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
