"""When batches start, how large they get, and how many run at a time (items 132, 137, 140, 141)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import uvloop

from mesh.batching.batch_decorator import batch
from mesh.context import REQUEST, ReplicaContext, Request, current_request, set_replica_context
from mesh.multiplex.multiplex_decorator import get_multiplexed_model_id
from mesh.wire.request_context import RequestContext
from tests.unit.batching.fake_time_loop import Recorder, now_s, run


@pytest.fixture
def replica() -> Iterator[Callable[[int], None]]:
    """Make this process look like a replica with this `max_ongoing_requests`."""
    yield lambda limit: set_replica_context(ReplicaContext("app", "deployment", "replica", limit))
    set_replica_context(None)


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
        await asyncio.gather(*map(function, range(4)), *(later(0.5, function, value) for value in range(3)))
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
        await asyncio.gather(function(1), function(2), later(1, function, 3), later(12, function, 4))
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


@pytest.mark.parametrize(("size_fn", "begins_by"), [(None, "timer"), (len, "timer"), (len, "caller")])
def test_no_batch_that_begins_behind_a_change_is_larger_than_that(size_fn: Any, begins_by: str) -> None:
    """Whatever lets it begin is ready in the loop already when the size is set (item 140)."""

    async def main() -> None:
        recorder = Recorder()
        function = recorder.batched(max_batch_size=10, batch_wait_timeout_s=5, batch_size_fn=size_fn)
        tasks = [asyncio.create_task(function(value)) for value in range(5)]
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        if begins_by == "timer":
            loop.call_at(5 - 1e-10, function.set_max_batch_size, 2)
        else:
            loop.call_soon(function.set_max_batch_size, 2)
            tasks.append(asyncio.create_task(function(5)))
        await asyncio.gather(*tasks)
        assert recorder.sizes == ([2, 2, 1] if begins_by == "timer" else [2, 2, 2])

    run(main)


def test_a_setter_may_meet_an_event_loop_that_begins_to_call() -> None:
    """Setters are for any thread (item 140)."""

    async def main() -> None:
        function = Recorder().batched(max_batch_size=10, batch_wait_timeout_s=0)
        assert await function(1) == 10
        other = threading.Thread(target=lambda: asyncio.run(function(2)))

        def meet(*_: Any) -> None:
            other.start()
            other.join()

        with patch.object(asyncio.get_running_loop(), "call_soon_threadsafe", meet):
            function.set_max_batch_size(1)
        assert other.ident is not None
        assert await function(3) == 30

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


async def later(delay_s: float, function: Any, value: Any) -> Any:
    await asyncio.sleep(delay_s)
    return await function(value)
