"""Batches of generators: every caller gets its item of every list (items 138, 139)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from mesh.batching.batch_call import STREAM_BUFFER_ITEMS
from mesh.batching.batch_decorator import batch
from mesh.exceptions import MeshException
from tests.unit.batching.fake_time_loop import run


def test_a_generator_gives_every_caller_its_item_of_every_list() -> None:
    """Each caller gets its place of each list until its stream ends (item 138)."""

    @batch(max_batch_size=3)
    async def count(limits: list[int]) -> AsyncIterator[list[Any]]:
        for step in range(max(limits)):
            yield [step if step < limit else StopIteration for limit in limits]

    async def main() -> None:
        streams = await asyncio.gather(*(collect(count(limit)) for limit in (1, 3, 2)))
        assert streams == [[0], [0, 1, 2], [0, 1]]

    run(main)


def test_items_may_be_arrays() -> None:
    """An item is never compared with an end, because arrays cannot be (item 138)."""

    @batch(max_batch_size=2)
    async def stream(values: list[int]) -> AsyncIterator[list[Any]]:
        yield [np.full(3, value) for value in values]

    async def main() -> None:
        streams = await asyncio.gather(collect(stream(1)), collect(stream(2)))
        assert [[item.tolist() for item in items] for items in streams] == [[[1, 1, 1]], [[2, 2, 2]]]

    run(main)


def test_a_stream_may_end_early_by_instance_too_and_the_others_go_on() -> None:
    """Instances of the stop exceptions end a stream as well as the classes (item 138)."""
    closed = []

    @batch(max_batch_size=2)
    async def stream(names: list[str]) -> AsyncIterator[list[Any]]:
        try:
            yield names
            yield [StopAsyncIteration(), names[1]]
            yield ["never seen", StopIteration()]
            yield ["no caller", "is left"]
        finally:
            closed.append(True)

    async def main() -> None:
        assert await asyncio.gather(collect(stream("a")), collect(stream("b"))) == [["a"], ["b", "b"]]
        assert closed == [True]

    run(main)


def test_a_mismatched_list_breaks_the_streams_once() -> None:
    """Every caller gets one error, then the end (item 138)."""

    @batch(max_batch_size=2)
    async def stream(values: list[int]) -> AsyncIterator[list[int]]:
        yield values
        yield [1]

    async def consume(value: int) -> None:
        items = stream(value)
        assert await anext(items) == value
        with pytest.raises(MeshException, match="batch size"):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    async def main() -> None:
        await asyncio.gather(consume(1), consume(2))

    run(main)


def test_an_exception_in_a_generator_comes_after_the_items_before_it() -> None:
    """Items that were yielded are delivered first (items 136, 138)."""

    @batch(max_batch_size=2)
    async def stream(values: list[int]) -> AsyncIterator[list[int]]:
        yield values
        raise ZeroDivisionError

    async def consume(value: int) -> list[int]:
        items: list[int] = []
        with pytest.raises(ZeroDivisionError):
            await _read_into(items, stream(value))
        return items

    async def main() -> None:
        assert await asyncio.gather(consume(1), consume(2)) == [[1], [2]]

    run(main)


def test_a_generator_waits_for_its_slowest_reader_until_that_one_leaves() -> None:
    """A bound on what a slow reader may pile up."""
    produced = 0

    @batch(max_batch_size=2)
    async def stream(values: list[int]) -> AsyncIterator[list[int]]:
        nonlocal produced
        while produced < 3 * STREAM_BUFFER_ITEMS:
            produced += 1
            yield values

    async def main() -> None:
        slow = stream(1)
        first, fast = await asyncio.gather(anext(slow), _first_and_rest(stream(2)))
        assert first == 1
        reader = asyncio.create_task(collect(fast))
        await asyncio.sleep(60)
        assert not reader.done()
        assert STREAM_BUFFER_ITEMS <= produced <= STREAM_BUFFER_ITEMS + 2
        await slow.aclose()
        assert len(await reader) == 3 * STREAM_BUFFER_ITEMS - 1

    run(main)


async def collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def _read_into(target: list[Any], items: AsyncIterator[Any]) -> None:
    async for item in items:
        target.append(item)


async def _first_and_rest(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    await anext(items)
    return items
