"""Waiting in unit tests: a condition is polled until it holds, in a thread or on a loop. To wait is to assert."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0
_PAUSE_S = 0.002


def until(condition: Callable[[], T], what: str) -> T:
    """What `condition` gives as soon as that is true: something that happens on its own. Fails the test when time runs
    out."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_at_s, f"timed out waiting for: {what}"
        time.sleep(_PAUSE_S)
    return found


async def until_async(condition: Callable[[], T], what: str) -> T:
    """The same on an event loop."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_at_s, f"timed out waiting for: {what}"
        await asyncio.sleep(_PAUSE_S)
    return found
