"""Counts of ended calls of one method, at either end of a link. One thread writes."""

from __future__ import annotations

from mesh.wire.telemetry import HistogramCounts

METHODS_MAX = 100
"""Methods with series of their own; a class has fewer, so more means invented names."""
OTHER = "other"


class MethodCounts:
    """Ended calls of one method: number by status code, and their seconds."""

    __slots__ = ("by_code", "latency")

    def __init__(self) -> None:
        self.by_code: dict[int, int] = {}
        self.latency = HistogramCounts()

    def count(self, code: int, seconds: float) -> None:
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.latency.observe(seconds)


class CountsByMethod(dict[str, MethodCounts]):
    """Method counts by name, bounded: names beyond the limit share one."""

    def __missing__(self, name: str) -> MethodCounts:
        key = name if len(self) < METHODS_MAX else OTHER
        return self.setdefault(key, MethodCounts())
