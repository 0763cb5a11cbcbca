"""mesh.replica.autoscaling_stats: the user's hook, its answers and its faults (item 155)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mesh.replica.autoscaling_stats import AutoscalingStats
from tests.sim.fake_time import run_in_fake_time


def watch(record: Callable[[], Coroutine[Any, Any, object]], interval_s: float = 5.0, duration_s: float = 12.0) -> Any:
    """What it says after that time."""

    async def main() -> Any:
        stats = AutoscalingStats(record, lambda: interval_s)
        task = asyncio.create_task(stats.run())
        await asyncio.sleep(duration_s)
        task.cancel()
        return stats.values

    return run_in_fake_time(main())


def test_the_hook_is_asked_at_the_interval() -> None:
    asked: list[int] = []

    async def record() -> dict[str, float]:
        asked.append(1)
        return {"asked": len(asked)}

    assert watch(record) == {"asked": 3.0}
    asked.clear()
    assert watch(record, interval_s=0.0) == {}
    assert not asked
    watch(record, interval_s=1e-9, duration_s=1.0)
    assert len(asked) <= 21  # a slip of the pen must not eat the replica


@pytest.mark.parametrize("answer", [None, [1], {"a": "b"}, {1: 2}, {"a": True}])
def test_what_is_no_dict_of_numbers_counts_for_nothing(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    async def record() -> object:
        return answer

    assert watch(record) == {}
    assert caplog.text.count("must return a dict of numbers") == 1


def test_a_hook_that_begins_to_fail_is_not_quoted_any_more(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([{"a": 1}, ZeroDivisionError("never")])

    async def record() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert watch(record, duration_s=7.0) == {}
    assert "ZeroDivisionError: never" in caplog.text


def test_a_hook_that_hangs_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def record() -> object:
        await asyncio.sleep(3600)
        return {"a": 1}

    assert watch(record, duration_s=11.0) == {}
    assert "no answer within 10 s" in caplog.text


@pytest.mark.parametrize("cancels_itself", [True, False])
def test_a_hook_that_is_cancelled_has_failed_and_is_asked_again(
    cancels_itself: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    async def record() -> object:
        asked.append(1)
        if len(asked) == 2 and cancels_itself and (task := asyncio.current_task()):
            task.cancel()
            await asyncio.sleep(0)
        if len(asked) == 2:
            raise asyncio.CancelledError
        return {"asked": len(asked)}

    assert watch(record, duration_s=7.0) == {}
    assert "record_autoscaling_stats failed: CancelledError" in caplog.text
    asked.clear()
    assert watch(record) == {"asked": 3.0}
