"""Polling of a blocking condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_S = 0.05


def poll(is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
    """Poll until `is_reached`; False once `timeout_s` have passed. None: no timeout."""
    deadline_at_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not is_reached():
        if time.monotonic() >= deadline_at_s:
            return False
        time.sleep(_POLL_S)
    return True
