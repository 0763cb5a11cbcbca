"""The lines that the demo prints: what was called, the result, its duration, and whether it is right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SOON_MS = 1000
"""Limit on a loaded machine; it usually takes a few milliseconds."""


class Report:
    """Prints each check and counts those that failed."""

    def __init__(self) -> None:
        self.failures = 0

    def check(self, what: str, holds: bool, came_back: str, took_s: float | None = None) -> None:
        took = f"{took_s * 1000:8.1f} ms" if took_s is not None else " " * 11
        print(f"  {'ok ' if holds else 'BAD'} {what:<34} {took}  {came_back}", flush=True)
        self.failures += not holds

    def note(self, text: str) -> None:
        print(f"      {text}", flush=True)

    def verdict(self) -> str:
        if self.failures:
            return f"{self.failures} checks FAILED, see the lines that begin with BAD."
        return "All checks held."

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A part of the report. An exception in it is a failed check, and the report continues."""
        try:
            yield
        except Exception as error:
            self.check(what, False, " ".join(f"{type(error).__name__}: {error}".split())[:400])


class Stopwatch:
    def __init__(self) -> None:
        self._began_at_s = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began_at_s


def latencies(call: Callable[[], object], count: int) -> str:
    """Median and 99th percentile of sequential calls, as text."""
    took_ms = []
    for _ in range(count):
        watch = Stopwatch()
        call()
        took_ms.append(watch.elapsed_s * 1000)
    percentiles = statistics.quantiles(took_ms, n=100)
    return f"{count} calls: median {percentiles[49]:.2f} ms, 99 % within {percentiles[98]:.2f} ms"


def poll(condition: Callable[[], float | None], timeout_s: float = 10.0) -> float | None:
    """Call `condition` until it returns something other than None, for at most `timeout_s`. Returns the result."""
    watch = Stopwatch()
    while (found := condition()) is None and watch.elapsed_s < timeout_s:
        time.sleep(0.02)
    return found


def describe_stop(seen_at_s: float | None, caused_at_s: float) -> tuple[bool, str]:
    """Whether cancelled work stopped soon, and a text with the time it took. Both instants are from one clock."""
    if seen_at_s is None:
        return False, "not seen downstream"
    after_ms = (seen_at_s - caused_at_s) * 1000
    return after_ms < STOP_SOON_MS, f"seen in the forecaster's code after {after_ms:.1f} ms"
