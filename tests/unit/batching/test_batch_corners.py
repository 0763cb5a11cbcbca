"""Corners of `@mesh.batch`: partial functions, calls that do not fit, and sizes that change."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from mesh.batching.batch_decorator import batch
from mesh.context import ReplicaContext, set_replica_context


async def scaled(factor: int, values: list[int]) -> list[int]:
    return [factor * value for value in values]


async def counted(start: int, values: list[int]) -> AsyncIterator[list[int]]:
    yield [start + value for value in values]


@pytest.fixture
def replica() -> Iterator[Callable[[int], None]]:
    """Make this process look like a replica with this `max_ongoing_requests`."""
    yield lambda limit: set_replica_context(ReplicaContext("app", "deployment", "replica", limit))
    set_replica_context(None)


def test_partial_functions_are_batched() -> None:
    """Of an `async def` they are as good as one (items 133, 134)."""
    function, stream = batch(functools.partial(scaled, 3)), batch(functools.partial(counted, 7))

    async def main() -> None:
        assert await asyncio.gather(function(1), function(2)) == [3, 6]
        assert [each async for each in stream(1)] == [8]

    asyncio.run(main())
    with pytest.raises(TypeError, match="async def"):
        batch(functools.partial(max, 1))


def test_a_call_that_does_not_fit_names_the_function() -> None:
    """It fails alone, before it is queued (item 134)."""

    class Scorer:
        @batch(max_batch_size=2)
        async def score(self, values: list[int]) -> list[int]:
            return values

    async def main() -> None:
        with pytest.raises(TypeError, match=r"Scorer\.score\(\): too many positional arguments"):
            await Scorer().score(1, 2)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"Scorer\.score\(\): missing a required argument: 'values'"):
            await Scorer().score()  # type: ignore[call-arg]
        assert await Scorer().score(1) == 1

    asyncio.run(main())


def test_a_size_that_was_raised_beyond_what_the_replica_takes_warns_too(
    caplog: pytest.LogCaptureFixture, replica: Callable[[int], None]
) -> None:
    """Once for each size that does not fit (items 140, 141)."""
    function = batch(max_batch_size=2, batch_wait_timeout_s=0)(functools.partial(scaled, 1))

    async def main() -> None:
        replica(4)
        await function(1)
        function.set_max_batch_size(4)
        await function(1)
        assert caplog.records == []
        for size in (5, 6):
            function.set_max_batch_size(size)
            await function(1)
            await function(1)

    asyncio.run(main())
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == ["scaled", "scaled"]
    assert "max_batch_size (6)" in caplog.text
