"""Waiting in tests: a condition is polled until it holds; the test fails with its last value when it never does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.01


def until(condition: Callable[[], T], timeout_s: float = 15.0) -> T:
    """What `condition` gives as soon as that is true. Fails the test when time runs out: to wait is to assert."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s; the last answer was {found!r}"
        time.sleep(PAUSE_S)
    return found
