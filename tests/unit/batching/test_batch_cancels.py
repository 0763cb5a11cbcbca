"""Callers of batches that leave, and what is left behind: nothing (item 139)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray import cloudpickle

from mesh.batching.batch_decorator import batch
from tests.unit.batching.fake_time_loop import Recorder, now_s, run


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
