"""@mesh.batch: options, arguments, results, streams and cancels (items 132–141, L24). Time is a fake clock."""

from __future__ import annotations

import asyncio
import gc
import selectors
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from mesh.batching.batch_call import STREAM_BUFFER_ITEMS
from mesh.batching.batch_decorator import batch
from mesh.context import REQUEST, ReplicaContext, Request, current_request, set_replica_context
from mesh.exceptions import MeshException
from mesh.multiplex.multiplex_decorator import get_multiplexed_model_id
from mesh.wire import telemetry
from mesh.wire.request_context import RequestContext

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


@pytest.fixture
def replica() -> Iterator[Callable[[int], None]]:
    """Make this process look like a replica with this `max_ongoing_requests`."""
    yield lambda limit: set_replica_context(ReplicaContext("app", "deployment", "replica", limit))
    set_replica_context(None)


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


def test_a_batch_starts_when_full_or_when_the_first_has_waited() -> None:
    """The wait is that of the first caller (item 137)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=3, batch_wait_timeout_s=5)
        await asyncio.gather(*map(function, range(3)))
        assert now_s() < 1
        late = asyncio.create_task(function(1))
        await asyncio.sleep(4)
        await asyncio.gather(late, function(2))
        assert now_s() == pytest.approx(5, abs=0.01)
        assert recorder.sizes == [3, 2]

    run(main)


def test_a_wait_of_zero_takes_what_is_there() -> None:
    """Calls that come during a batch form the next one (item 137)."""

    async def main() -> None:
        recorder = Recorder(takes_s=1)
        function = recorder.batched(max_batch_size=10, batch_wait_timeout_s=0)
        await asyncio.gather(*map(function, range(4)), *(_later(0.5, function, value) for value in range(3)))
        assert recorder.sizes == [4, 3]
        assert recorder.batches[1][0] == pytest.approx(1, abs=0.01)

    run(main)


@pytest.mark.parametrize("wait_s", [0, 0.001])
def test_batches_form_on_the_event_loop_of_replicas_too(wait_s: float) -> None:
    """uvloop, whose timers differ from those of asyncio, forms full batches too (item 137)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=10, batch_wait_timeout_s=wait_s)
        for _ in range(3):
            assert await asyncio.gather(*map(function, range(4))) == [0, 10, 20, 30]
        assert recorder.sizes == [4, 4, 4]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_the_wait_begins_only_once_a_slot_is_free() -> None:
    """The wait does not run while the batch could not start (item 137)."""

    async def main() -> None:
        recorder = Recorder(takes_s=10)
        function = recorder.batched(max_batch_size=2, batch_wait_timeout_s=3)
        await asyncio.gather(function(1), function(2), _later(1, function, 3), _later(12, function, 4))
        assert [values for _, values in recorder.batches] == [[1, 2], [3, 4]]

    run(main)


def test_no_more_batches_run_at_once_than_allowed() -> None:
    """`max_concurrent_batches` is a strict limit (item 132)."""
    running = peak = 0

    @batch(max_batch_size=2, max_concurrent_batches=3, batch_wait_timeout_s=0)
    async def function(values: list[int]) -> list[int]:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(1)
        running -= 1
        return values

    async def main() -> None:
        assert await asyncio.gather(*map(function, range(20))) == list(range(20))
        assert peak == 3

    run(main)


def test_a_generator_gives_every_caller_its_item_of_every_list() -> None:
    """Each caller gets its place of each list until its stream ends (item 138)."""

    @batch(max_batch_size=3)
    async def count(limits: list[int]) -> AsyncIterator[list[Any]]:
        for step in range(max(limits)):
            yield [step if step < limit else StopIteration for limit in limits]

    async def main() -> None:
        streams = await asyncio.gather(*(_collect(count(limit)) for limit in (1, 3, 2)))
        assert streams == [[0], [0, 1, 2], [0, 1]]

    run(main)


def test_items_may_be_arrays() -> None:
    """An item is never compared with an end, because arrays cannot be (item 138)."""

    @batch(max_batch_size=2)
    async def stream(values: list[int]) -> AsyncIterator[list[Any]]:
        yield [np.full(3, value) for value in values]

    async def main() -> None:
        streams = await asyncio.gather(_collect(stream(1)), _collect(stream(2)))
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
        assert await asyncio.gather(_collect(stream("a")), _collect(stream("b"))) == [["a"], ["b", "b"]]
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
        reader = asyncio.create_task(_collect(fast))
        await asyncio.sleep(60)
        assert not reader.done()
        assert STREAM_BUFFER_ITEMS <= produced <= STREAM_BUFFER_ITEMS + 2
        await slow.aclose()
        assert len(await reader) == 3 * STREAM_BUFFER_ITEMS - 1

    run(main)


def test_a_caller_cancelled_in_the_queue_is_not_executed() -> None:
    """The batch has only callers that still wait (item 139)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=3, batch_wait_timeout_s=5)
        tasks = [asyncio.create_task(function(value)) for value in (1, 2)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [values for _, values in recorder.batches] == [[2]]
        assert tasks[0].cancelled()
        assert tasks[1].result() == 20

    run(main)


def test_cancelling_one_caller_of_a_running_batch_leaves_the_others_alone() -> None:
    """The batch goes on for the others (item 139)."""

    async def main() -> None:
        recorder = Recorder(takes_s=10)
        function = recorder.batched(max_batch_size=2)
        tasks = [asyncio.create_task(function(value)) for value in (1, 2)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[0].cancelled()
        assert tasks[1].result() == 20

    run(main)


def test_a_batch_without_callers_is_cancelled_and_the_next_one_runs() -> None:
    """No cancel stops the batching (item 139)."""
    cancelled = []

    @batch(max_batch_size=2)
    async def function(values: list[int]) -> list[int]:
        try:
            await asyncio.sleep(values[0])
        except asyncio.CancelledError:
            cancelled.append(values)
            raise
        return values

    async def main() -> None:
        tasks = [asyncio.create_task(function(100)) for _ in range(2)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        assert await function(3) == 3
        assert cancelled == [[100, 100]]
        assert now_s() < 10

    run(main)


def test_a_function_that_cancels_itself_does_not_stop_the_batcher() -> None:
    """A CancelledError of user code ends its own batch only (L24)."""

    @batch(max_batch_size=1)
    async def function(values: list[int]) -> list[int]:
        if values == [0]:
            raise asyncio.CancelledError
        return values

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await function(0)
        assert await function(1) == 1

    run(main)


def test_setters_change_a_running_batcher() -> None:
    """New options hold for calls that wait already (item 140)."""

    class Model:
        sizes: tuple[int, ...] = ()

        @batch(max_batch_size=10, batch_wait_timeout_s=1000)
        async def take(self, values: list[int]) -> list[int]:
            self.sizes += (len(values),)
            return values

        def reconfigure(self, options: dict[str, Any]) -> None:
            self.take.set_max_batch_size(options["size"])  # type: ignore[attr-defined]
            self.take.set_batch_wait_timeout_s(options["wait_s"])  # type: ignore[attr-defined]

    async def main() -> None:
        model = Model()
        tasks = [asyncio.create_task(model.take(value)) for value in range(5)]
        await asyncio.sleep(1)
        model.reconfigure({"size": 2, "wait_s": 0.5})
        await asyncio.gather(*tasks)
        assert model.sizes == (2, 2, 1)
        assert now_s() < 2
        with pytest.raises(ValueError, match="max_batch_size"):
            model.reconfigure({"size": 0, "wait_s": 0})

    run(main)


def test_batch_size_fn_limits_the_measure_of_a_batch() -> None:
    """An item above the limit raises RuntimeError (item 141)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=10, batch_wait_timeout_s=1, batch_size_fn=sum)
        await asyncio.gather(*map(function, [6, 3, 5, 5, 9, 4]))
        assert [values for _, values in recorder.batches] == [[6, 3], [5, 5], [9], [4]]
        with pytest.raises(RuntimeError, match="size 11, more than max_batch_size=10"):
            await function(11)

    run(main)


def test_an_error_of_batch_size_fn_reaches_its_caller_and_stops_nothing() -> None:
    """The others are batched as before (item 141, L24)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=10, batch_wait_timeout_s=1, batch_size_fn=sum)
        results = await asyncio.gather(function(1), function("x"), function(2), return_exceptions=True)
        assert results[0] == 10
        assert isinstance(results[1], TypeError)
        assert results[2] == 20

    run(main)


def test_batches_are_split_by_model_id_and_know_theirs() -> None:
    """Callers with different model ids never meet (items 124, 141)."""
    batches: list[tuple[str, list[int]]] = []

    @batch(max_batch_size=3, batch_wait_timeout_s=1)
    async def function(values: list[int]) -> list[int]:
        batches.append((get_multiplexed_model_id(), values))
        request = current_request()
        assert request is not None
        assert request.deadline_at_s is None
        return values

    async def call(model_id: str, value: int) -> int:
        REQUEST.set(Request(RequestContext(multiplexed_model_id=model_id), deadline_at_s=0.0))
        return await function(value)

    async def main() -> None:
        calls = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("c", 6)]
        assert await asyncio.gather(*(asyncio.create_task(call(*each)) for each in calls)) == [1, 2, 3, 4, 5, 6]
        assert batches == [("a", [1, 3, 5]), ("b", [2, 4]), ("c", [6])]

    run(main)


def test_a_replica_that_cannot_fill_its_batches_warns_once(
    caplog: pytest.LogCaptureFixture, replica: Callable[[int], None]
) -> None:
    """The warning says how large `max_ongoing_requests` has to be (item 141)."""

    async def main() -> None:
        replica(4)
        await Recorder().batched(max_batch_size=2, max_concurrent_batches=2)(1)
        assert caplog.records == []
        function = Recorder().batched(max_batch_size=5)
        await function(1)
        await function(1)

    run(main)
    assert len(caplog.records) == 1
    assert "max_ongoing_requests (4)" in caplog.text


def test_nothing_is_left_behind_when_the_loop_ends_and_the_next_loop_starts_afresh() -> None:
    """A queue belongs to a loop; callers that are cut off do not disturb those that come later."""
    recorder = Recorder(takes_s=1)
    function = recorder.batched(max_batch_size=2)

    async def cut_off() -> None:
        _abandoned.extend(asyncio.create_task(function(value)) for value in range(5))
        await asyncio.sleep(0.5)

    async def afresh() -> None:
        assert await function(3) == 30
        assert asyncio.all_tasks() == {asyncio.current_task()}

    _abandoned: list[asyncio.Task[Any]] = []
    run(cut_off)
    assert all(task.cancelled() for task in _abandoned)
    run(afresh)


def test_a_batched_method_is_pickled_without_what_waits_in_it() -> None:
    """Decorated classes travel by value into replicas."""

    class Model:
        @batch(max_batch_size=2, batch_wait_timeout_s=0)
        async def take(self, values: list[int]) -> list[int]:
            return values

        async def use(self) -> Any:
            return await self.take(1)

    async def main() -> None:
        model = Model()
        assert await model.use() == 1
        copy = cloudpickle.loads(cloudpickle.dumps(Model))()
        assert await copy.use() == 1
        assert (await cloudpickle.loads(cloudpickle.dumps(model)).use()) == 1
        copy.take.set_max_batch_size(7)

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
        assert _metric("mesh_batch_queue_length", "counted").value == 1
        await asyncio.gather(*tasks)
        assert _metric("mesh_batch_queue_length", "counted").value == 0
        assert _metric("mesh_batches_processed_total", "counted").value == 2
        assert _metric("mesh_actual_batch_size", "counted").sum == 3
        assert _metric("mesh_batch_execution_time_seconds", "counted").sum == pytest.approx(6, abs=0.01)
        assert _metric("mesh_batch_wait_time_seconds", "counted").sum == pytest.approx(4, abs=0.01)

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


async def _later(delay_s: float, function: Any, value: Any) -> Any:
    await asyncio.sleep(delay_s)
    return await function(value)


async def _collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def _read_into(target: list[Any], items: AsyncIterator[Any]) -> None:
    async for item in items:
        target.append(item)


async def _first_and_rest(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    await anext(items)
    return items


def _metric(name: str, function_name: str) -> telemetry.Sample:
    samples = next(samples for family, samples in telemetry.collect() if family.name == name)
    return next(sample for sample in samples if sample.label_values[-1] == function_name)
