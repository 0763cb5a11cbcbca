"""Waiting in tests: a condition is polled until it holds; the test fails with its last value when it never does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_MIN_S, PAUSE_MAX_S = 0.005, 0.05
PAUSE_SHARE = 0.05
"""Of the time that was waited: to ask more often would take the processor from what is waited for."""


def until(condition: Callable[[], T], timeout_s: float = 60.0) -> T:
    """What `condition` gives as soon as that is true. Fails the test when time runs out: to wait is to assert."""
    began_at_s = time.monotonic()
    while not (found := condition()):
        waited_s = time.monotonic() - began_at_s
        assert waited_s < timeout_s, f"not within {timeout_s} s; the last answer was {found!r}"
        time.sleep(min(max(PAUSE_MIN_S, waited_s * PAUSE_SHARE), PAUSE_MAX_S))
    return found
