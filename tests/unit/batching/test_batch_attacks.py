"""User code that does its worst in a batch: its callers get an outcome, and the next batch runs (items 135–139)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batching.batch_decorator import batch
from mesh.exceptions import MeshException

BOUND_S = 30.0


class BoomError(BaseException):
    """Nothing that `except Exception` catches."""


class UnspeakableError(SystemExit):
    def __str__(self) -> str:
        raise BoomError


async def outcome_of(call: Any) -> object:
    """What a caller gets, in bounded time: its value, or its error."""
    try:
        return await asyncio.wait_for(call, BOUND_S)
    except TimeoutError:
        pytest.fail("a caller waits forever")
    except BaseException as error:
        return error


def two_callers(function: Callable[..., Any]) -> list[object]:
    """The outcomes of a batch of two, and then of a third call, which must go well."""

    async def run() -> list[object]:
        outcomes = await asyncio.gather(*(outcome_of(function(number)) for number in (1, 2)))
        return [*outcomes, await outcome_of(function(3))]

    return asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BoomError("boom"),
        StopAsyncIteration(),
        StopIteration(),
        UnspeakableError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_any_kind_reaches_the_callers_and_not_the_loop(error: BaseException) -> None:
    """Also those that would end the process, or mean something to the event loop (item 136)."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def bad(numbers: list[int]) -> list[int]:
        if 1 in numbers:
            raise error
        return numbers

    first, second, third = two_callers(bad)
    assert isinstance(first, BaseException)
    assert type(first) is type(second)
    assert third == 3
    said = f"{first!r}{first.__cause__!r}"
    assert type(error).__name__ in said


@pytest.mark.parametrize(
    "results",
    [None, 7, [], [1], [1, 2, 3], "ab", b"ab", {1: 1, 2: 2}, {1, 2}, iter([1, 2]), iter("ab"), np.array(7)],
)
def test_what_is_no_list_of_one_result_each_is_refused(results: Any) -> None:
    """A string or a dictionary of the right length is not a list either: its characters and keys mean nothing (135)."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def bad(numbers: list[int]) -> Any:
        return results if 1 in numbers else numbers

    first, second, third = two_callers(bad)
    for outcome in (first, second):
        assert isinstance(outcome, MeshException)
        assert "Batched function doesn't preserve batch size" in str(outcome)
    assert third == 3


class Liar(list[int]):
    """Says that it has two entries and gives one."""

    def __len__(self) -> int:
        return 2


class Bomb(list[int]):
    def __len__(self) -> int:
        raise BoomError


@pytest.mark.parametrize("results", [Liar([1]), Bomb([1, 2])])
def test_a_list_that_lies_leaves_no_caller_without_an_outcome(results: list[int]) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def bad(numbers: list[int]) -> Any:
        return results if 1 in numbers else numbers

    *_, second, third = two_callers(bad)
    assert isinstance(second, BaseException)
    assert third == 3


async def new_batch_task(before: set[asyncio.Task[Any]], steps: int) -> asyncio.Task[Any]:
    """The task of the next batch, some rounds of the loop after it was made."""
    for _ in range(100):
        for task in asyncio.all_tasks() - before:
            if task.get_name() == "batch":
                for _ in range(steps):
                    await asyncio.sleep(0)
                return task
        await asyncio.sleep(0)
    pytest.fail("no batch has begun")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_batch_whose_task_is_cancelled_from_outside_lets_its_callers_go(steps: int) -> None:
    """Before its first step too, when not a line of it has run (item 139)."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def slow(numbers: list[int]) -> list[int]:
        if 1 in numbers:
            await asyncio.sleep(60)
        return numbers

    async def run() -> None:
        before = asyncio.all_tasks()
        callers = [asyncio.create_task(outcome_of(slow(number)), name="caller") for number in (1, 2)]
        (await new_batch_task(before, steps)).cancel()
        first, second = await asyncio.gather(*callers)
        assert isinstance(first, asyncio.CancelledError)
        assert isinstance(second, asyncio.CancelledError)
        assert await outcome_of(slow(3)) == 3

    asyncio.run(run())


@pytest.mark.parametrize("size", [None, "large", [1, 2]])
def test_a_size_that_is_no_number_is_an_error_that_says_so(size: Any) -> None:
    """Often the function is `async`, or has no `return`."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0, batch_size_fn=lambda numbers: 1 if 3 in numbers else size)
    async def same(numbers: list[int]) -> list[int]:
        return numbers

    first, second, third = two_callers(same)
    assert isinstance(first, TypeError)
    assert str(first) == str(second) == f"batch_size_fn must return a number, got {size!r}."
    assert third == 3


def test_a_size_that_is_not_a_number_stops_no_loop() -> None:
    """Two calls that have the size NaN together make two batches (item 141)."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0, batch_size_fn=lambda numbers: 1 if len(numbers) < 2 else math.nan)
    async def same(numbers: list[int]) -> list[int]:
        return numbers

    assert two_callers(same) == [1, 2, 3]


@pytest.mark.parametrize("error", [SystemExit(), BoomError(), StopIteration(), ValueError("no size")])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5])
def test_a_size_function_that_raises_at_any_time_costs_only_those_it_measured(
    error: BaseException, fails_at: int
) -> None:
    """In a call, in a timer, or when the next batch is put together."""
    calls = 0

    def size_of(numbers: list[int]) -> int:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise error
        return len(numbers)

    @batch(max_batch_size=2, batch_wait_timeout_s=0.001, batch_size_fn=size_of)
    async def same(numbers: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return numbers

    async def run() -> None:
        outcomes = await asyncio.gather(*(outcome_of(same(number)) for number in range(5)))
        assert all(outcome == number or isinstance(outcome, BaseException) for number, outcome in enumerate(outcomes))
        assert await outcome_of(same(7)) in (7, error) or calls <= fails_at
        assert await outcome_of(same(8)) == 8

    asyncio.run(run())


# ---- Streams ---------------------------------------------------------------------------------------------------------


async def items_of(stream: AsyncIterator[Any]) -> list[object]:
    items: list[object] = []
    try:
        async with asyncio.timeout(BOUND_S):
            async for item in stream:
                items.append(item)
    except TimeoutError:
        pytest.fail("a caller waits forever")
    except BaseException as error:
        items.append(type(error))
    return items


def two_streams(function: Callable[..., Any]) -> list[list[object]]:
    async def run() -> list[list[object]]:
        streams = await asyncio.gather(*(items_of(function(number)) for number in (1, 2)))
        return [*streams, await items_of(function(3))]

    return asyncio.run(run())


def test_a_generator_that_stops_early_ends_all_streams() -> None:
    """Also one that never yields (item 138)."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def short(numbers: list[int]) -> AsyncIterator[list[int]]:
        if 3 in numbers:
            return
        yield numbers

    assert two_streams(short) == [[1], [2], []]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BoomError("boom"), GeneratorExit()])
def test_an_exception_of_any_kind_in_a_generator_reaches_the_callers(error: BaseException) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def bad(numbers: list[int]) -> AsyncIterator[list[int]]:
        yield numbers
        if 1 in numbers:
            raise error

    first, second, third = two_streams(bad)
    assert (first[0], second[0], third) == (1, 2, [3])
    assert len(first) == len(second) == 2


@pytest.mark.parametrize("items", [None, "ab", {1: 1, 2: 2}, [1], [1, 2, 3]])
def test_a_generator_that_yields_no_list_of_one_item_each_breaks_its_streams(items: Any) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def bad(numbers: list[int]) -> AsyncIterator[Any]:
        yield numbers
        if 1 in numbers:
            yield items

    assert two_streams(bad) == [[1, MeshException], [2, MeshException], [3]]


def test_a_generator_that_does_not_want_to_close_holds_up_nothing() -> None:
    """It yields in its `finally`, which Python answers with an error."""

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def stubborn(numbers: list[int]) -> AsyncIterator[list[Any]]:
        try:
            yield numbers
            yield [StopIteration] * len(numbers)
            yield numbers
        finally:
            yield numbers

    assert two_streams(stubborn) == [[1], [2], [3]]


# ---- Any mixture -----------------------------------------------------------------------------------------------------

_MOODS = ("good", "good", "raises", "exits", "short", "cancels itself", "cancelled")


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(st.tuples(st.sampled_from(_MOODS), st.integers(0, 4), st.booleans()), min_size=1, max_size=20),
    size=st.integers(1, 4),
    concurrent=st.integers(1, 3),
)
def test_whatever_batches_do_every_caller_ends_and_the_batcher_lives(
    calls: list[tuple[str, int, bool]], size: int, concurrent: int
) -> None:
    """Errors, exits, wrong lengths, cancels from inside and outside, and callers that leave, in any order."""

    @batch(max_batch_size=size, batch_wait_timeout_s=0, max_concurrent_batches=concurrent)
    async def moody(moods: list[str]) -> list[str]:
        await asyncio.sleep(0)
        for mood in moods:
            match mood:
                case "raises":
                    raise ValueError(mood)
                case "exits":
                    raise SystemExit(mood)
                case "short":
                    return moods[:-1]
                case "cancels itself":
                    raise asyncio.CancelledError
                case "cancelled":
                    for task in asyncio.all_tasks():
                        if task.get_name() == "batch":
                            task.cancel()
                    await asyncio.sleep(0)
        return moods

    async def call(mood: str, rounds: int, leaves: bool) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)
        caller = asyncio.create_task(outcome_of(moody(mood)))
        if leaves:
            await asyncio.sleep(0)
            caller.cancel()
        outcome = (await asyncio.gather(caller, return_exceptions=True))[0]
        assert outcome == mood or isinstance(outcome, BaseException)

    async def run() -> None:
        await asyncio.gather(*(call(*each) for each in calls))
        assert await outcome_of(moody("good")) == "good"

    asyncio.run(run())
