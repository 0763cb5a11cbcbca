"""How much memory Python has in use now that was allocated within a block."""

from __future__ import annotations

import gc
import tracemalloc
from types import TracebackType


class MemoryInUse:
    """Counts all threads, so what is to be measured needs a process of its own."""

    def __enter__(self) -> MemoryInUse:
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tracemalloc.stop()

    @property
    def bytes(self) -> int:
        return tracemalloc.get_traced_memory()[0]
