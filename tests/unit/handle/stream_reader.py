"""A replica that reads streamed requests, and iterables to send it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any

from tests.unit.fakes.small_mesh import until

DEADLINE_S = 30.0


class Reader:
    """Reads a stream in every way."""

    def __init__(self) -> None:
        self.read = 0
        self.gate = threading.Event()
        self.started = threading.Event()

    async def collect(self, items: AsyncIterator[Any]) -> list[Any]:
        return [item async for item in items]

    async def count_slowly(self, items: AsyncIterator[bytes]) -> int:
        self.started.set()
        await asyncio.to_thread(self.gate.wait, DEADLINE_S)
        async for _ in items:
            self.read += 1
        return self.read

    def in_thread(self, items: Iterable[int]) -> list[int]:
        return list(items)

    async def echo(self, items: AsyncIterator[Any], stop_after: int = 10**9) -> AsyncIterator[Any]:
        async for item in items:
            yield item
            stop_after -= 1
            if not stop_after:
                return

    async def fail(self, items: AsyncIterator[Any]) -> None:
        await anext(items)
        raise ZeroDivisionError("enough")

    async def stop_reading(self, items: Any) -> tuple[int, bool, bool]:
        first = await anext(items)
        items.cancel()
        return first + len([item async for item in items]), items.is_cancelled(), items.is_exhausted

    async def hold(self) -> None:
        self.started.set()
        await asyncio.to_thread(self.gate.wait, DEADLINE_S)


def no_stream_threads() -> bool:
    until(lambda: not stream_threads(), "the end of the threads of request streams")
    return True


def stream_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mesh-request-stream"]


async def count(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


def result(response: Any) -> Any:
    return response.result(timeout_s=DEADLINE_S)
