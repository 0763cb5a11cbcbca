"""Polling of a blocking condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_MIN_S, _POLL_MAX_S = 0.05, 1.0
_POLL_SHARE = 0.05
"""Pause as a share of the time that has passed: a long wait is polled less often, and ends a little later."""


def poll(is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
    """Poll until `is_reached`; False once `timeout_s` have passed. None: no timeout."""
    began_at_s = time.monotonic()
    deadline_at_s = float("inf") if timeout_s is None else began_at_s + timeout_s
    while not is_reached():
        now_s = time.monotonic()
        if now_s >= deadline_at_s:
            return False
        time.sleep(min(max(_POLL_MIN_S, (now_s - began_at_s) * _POLL_SHARE), _POLL_MAX_S))
    return True
