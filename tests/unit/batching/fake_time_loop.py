"""An event loop whose time is a fake clock, and functions to batch that record what they get."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mesh.batching.batch_decorator import batch

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the clock there."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "the loop waits for something that never happens"
        self.now_s += timeout
        return super().select(0)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Recorder:
    """A batched method that remembers its batches and when they began."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.batches: list[tuple[float, list[Any]]] = []
        self.takes_s = takes_s

    async def record(self, values: list[Any]) -> list[Any]:
        self.batches.append((now_s(), values))
        await asyncio.sleep(self.takes_s)
        return [value * 10 for value in values]

    def batched(self, **options: Any) -> Any:
        async def record(values: list[Any]) -> list[Any]:
            return await self.record(values)

        return batch(**options)(record)

    @property
    def sizes(self) -> list[int]:
        return [len(values) for _, values in self.batches]
