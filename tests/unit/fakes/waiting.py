"""Waiting in unit tests: a condition is polled until it holds, in a thread or on a loop. To wait is to assert."""

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 10.0
_PAUSE_S = 0.002


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens on its own. Fails the test when time runs out."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_at_s, f"timed out waiting for: {what}"
        time.sleep(_PAUSE_S)


async def until_async(condition: Callable[[], object], what: str) -> None:
    """The same on an event loop."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_at_s, f"timed out waiting for: {what}"
        await asyncio.sleep(_PAUSE_S)
