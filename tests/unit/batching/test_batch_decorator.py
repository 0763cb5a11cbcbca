"""@mesh.batch: options, arguments, results and errors (items 132–136). Time is a fake clock."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batching.batch_decorator import batch
from mesh.exceptions import MeshException
from mesh.wire import telemetry
from tests.unit.batching.fake_time_loop import Recorder, run


@pytest.mark.parametrize("wrong", [lambda xs: xs, 7, "name", print])
def test_only_async_functions_are_batched(wrong: Any) -> None:
    """Other functions raise TypeError (item 133)."""
    with pytest.raises(TypeError, match="async def"):
        batch(wrong)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_batch_size": 1.1}, TypeError),
        ({"max_batch_size": "4"}, TypeError),
        ({"max_batch_size": True}, TypeError),
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": -1}, ValueError),
        ({"batch_wait_timeout_s": -0.1}, ValueError),
        ({"batch_wait_timeout_s": float("nan")}, ValueError),
        ({"batch_wait_timeout_s": "1"}, TypeError),
        ({"max_concurrent_batches": 0}, ValueError),
        ({"batch_size_fn": 8}, TypeError),
        ({"max_concurrent_batches": 1.5}, TypeError),
    ],
)
def test_unusable_options_are_refused_when_decorating(options: dict[str, Any], error: type[Exception]) -> None:
    """Wrong types and ranges raise at decoration (item 133)."""
    with pytest.raises(error):
        batch(**options)


def test_an_integral_float_is_a_batch_size() -> None:
    """A size from JSON may be 2.0 (item 133)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=2.0)
        await asyncio.gather(*map(function, range(4)))
        assert recorder.sizes == [2, 2]

    run(main)


def test_bare_and_parenthesised_decoration_work_on_functions_and_methods() -> None:
    """Every form of decoration batches (item 134)."""

    @batch
    async def double(values: list[int]) -> list[int]:
        return [value * 2 for value in values]

    class Model:
        @batch(max_batch_size=4)
        async def double(self, values: list[int]) -> list[int]:
            return [value * 2 for value in values]

    async def main() -> None:
        assert await asyncio.gather(*map(double, range(5))) == [0, 2, 4, 6, 8]
        assert await asyncio.gather(*map(Model().double, range(5))) == [0, 2, 4, 6, 8]

    run(main)


def test_every_argument_becomes_a_list_whatever_way_it_is_passed() -> None:
    """Positional, keyword and default arguments are lists alike (item 134)."""
    seen: list[tuple[Any, Any, Any]] = []

    @batch(max_batch_size=3)
    async def function(a: list[int], b: list[str], c: Any = "default") -> list[str]:
        seen.append((a, b, c))
        return [f"{x}{y}" for x, y in zip(a, b, strict=True)]

    async def main() -> None:
        calls = function(1, "x"), function(2, b="y"), function(b="z", a=3)
        assert await asyncio.gather(*calls) == ["1x", "2y", "3z"]
        assert seen.pop() == ([1, 2, 3], ["x", "y", "z"], "default")
        await asyncio.gather(function(1, "x", c="given"), function(2, "y"))
        assert seen.pop() == ([1, 2], ["x", "y"], ["given", "default"])
        with pytest.raises(TypeError, match="missing a required argument"):
            await function(1)

    run(main)


def test_variable_arguments_become_lists_too() -> None:
    """`*args` and `**kwargs` have one list per argument (item 134)."""

    @batch(max_batch_size=2)
    async def function(*args: list[int], **named: list[int]) -> list[Any]:
        return list(zip(*args, *named.values(), strict=True))

    async def main() -> None:
        assert await asyncio.gather(function(1, 2, k=3), function(4, 5, k=6)) == [(1, 2, 3), (4, 5, 6)]
        differing = await asyncio.gather(function(1), function(1, 2), return_exceptions=True)
        assert [type(error) for error in differing] == [TypeError, TypeError]

    run(main)


def test_each_object_has_its_own_queue_and_is_not_kept_alive() -> None:
    """Calls of two objects never share a batch (item 134)."""

    class Model:
        def __init__(self) -> None:
            self.batches: list[list[int]] = []

        @batch(max_batch_size=2)
        async def take(self, values: list[int]) -> list[int]:
            self.batches.append(values)
            return values

        __hash__ = None  # type: ignore[assignment]

    async def main() -> None:
        first, second = Model(), Model()
        await asyncio.gather(first.take(1), second.take(2), first.take(3), second.take(4))
        assert (first.batches, second.batches) == ([[1, 3]], [[2, 4]])
        dead = weakref.ref(first)
        del first
        gc.collect()
        assert dead() is None

    run(main)


def test_wrong_number_of_results_is_an_error_for_every_caller() -> None:
    """Every caller gets MeshException (item 135)."""
    answers: list[Any] = [[1], [1, 2, 3], None, 5, {"a": 1}]

    @batch(max_batch_size=2)
    async def function(values: list[int]) -> Any:
        return answers.pop()

    async def main() -> None:
        while answers:
            results = await asyncio.gather(function(1), function(2), return_exceptions=True)
            assert all(isinstance(result, MeshException) for result in results)
            assert all("doesn't preserve batch size" in str(result) for result in results)

    run(main)


def test_an_exception_reaches_every_caller_of_its_batch_and_stops_nothing() -> None:
    """The next batch runs (item 136, L24)."""

    @batch(max_batch_size=2)
    async def function(values: list[int]) -> list[float]:
        return [1 / value for value in values]

    async def main() -> None:
        calls = function(1), function(0), function(2), function(4)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError, float, float]

    run(main)


def test_batches_are_counted_and_measured() -> None:
    """Metrics of batching, by function name."""

    async def counted(values: list[int]) -> list[int]:
        await asyncio.sleep(3)
        return values

    async def main() -> None:
        function = batch(max_batch_size=2, batch_wait_timeout_s=1)(counted)
        tasks = [asyncio.create_task(function(value)) for value in range(3)]
        await asyncio.sleep(0.5)
        assert metric("mesh_batch_queue_length", "counted").value == 1
        await asyncio.gather(*tasks)
        assert metric("mesh_batch_queue_length", "counted").value == 0
        assert metric("mesh_batches_processed_total", "counted").value == 2
        assert metric("mesh_actual_batch_size", "counted").sum == 3
        assert metric("mesh_batch_execution_time_seconds", "counted").sum == pytest.approx(6, abs=0.01)
        assert metric("mesh_batch_wait_time_seconds", "counted").sum == pytest.approx(4, abs=0.01)

    run(main)


@settings(max_examples=150, deadline=None)
@given(
    callers=st.lists(
        st.tuples(
            st.floats(0, 5),  # arrives
            st.sampled_from(["fine", "fine", "fine", "fails", "is cancelled"]),
            st.floats(0, 5),  # patience of a cancelled one
        ),
        min_size=1,
        max_size=30,
    ),
    max_batch_size=st.integers(1, 5),
    wait_s=st.sampled_from([0.0, 0.3, 2.0]),
    max_concurrent_batches=st.integers(1, 3),
)
def test_every_caller_gets_exactly_its_own_outcome(
    callers: list[tuple[float, str, float]], max_batch_size: int, wait_s: float, max_concurrent_batches: int
) -> None:
    """Random arrivals, failures and cancels leave no caller waiting (items 134, 136, 139, L24)."""
    sizes: list[int] = []

    @batch(max_batch_size=max_batch_size, batch_wait_timeout_s=wait_s, max_concurrent_batches=max_concurrent_batches)
    async def function(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        await asyncio.sleep(0.5)
        if any(callers[number][1] == "fails" for number in numbers):
            raise ZeroDivisionError
        return [-number for number in numbers]

    async def call(number: int) -> Any:
        arrives_s, behaviour, patience_s = callers[number]
        await asyncio.sleep(arrives_s)
        if behaviour != "is cancelled":
            return await function(number)
        async with asyncio.timeout(patience_s):
            return await function(number)

    async def main() -> None:
        outcomes = await asyncio.gather(*map(call, range(len(callers))), return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            allowed: tuple[type, ...] = (ZeroDivisionError, TimeoutError)
            assert outcome == -number if not isinstance(outcome, BaseException) else isinstance(outcome, allowed)
            assert not isinstance(outcome, TimeoutError) or callers[number][1] == "is cancelled"
        assert max(sizes, default=0) <= max_batch_size
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def metric(name: str, function_name: str) -> telemetry.Sample:
    samples = next(samples for family, samples in telemetry.collect() if family.name == name)
    return next(sample for sample in samples if sample.label_values[-1] == function_name)
