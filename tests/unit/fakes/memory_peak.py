"""How much memory Python takes for something, at its peak."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class MemoryPeak:
    bytes: int = 0
    """Known when the block has ended."""


@contextmanager
def memory_peak() -> Iterator[MemoryPeak]:
    """Counts all threads, so what is to be measured needs a process of its own."""
    peak = MemoryPeak()
    gc.collect()
    tracemalloc.start()
    try:
        yield peak
        _, peak.bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
