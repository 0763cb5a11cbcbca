"""mesh.replica.recorded_stats: the user's hooks, their answers and their faults (item 155)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mesh.replica.recorded_stats import AUTOSCALING, RecordedStats, json_values, metadata_of, numbers
from mesh.v1 import control_pb2
from tests.sim.fake_time import run_in_fake_time


def watch(
    record: Callable[[], Coroutine[Any, Any, object]],
    interval_s: float = 5.0,
    duration_s: float = 12.0,
    told: list[Any] | None = None,
) -> Any:
    """What it says after that time."""
    told = [] if told is None else told

    async def main() -> Any:
        stats = RecordedStats(
            AUTOSCALING,
            lambda hook: record(),
            interval_s=lambda: interval_s,
            timeout_s=lambda: 10.0,
            read=numbers,
            on_read=told.append,
        )
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


def test_an_interval_that_becomes_shorter_holds_within_the_longer_one_before() -> None:
    """As replicas take it over while they run (items 155, 187)."""

    async def main() -> None:
        asked: list[float] = []
        interval_s = 3600.0

        async def record(hook: str) -> dict[str, float]:
            asked.append(asyncio.get_running_loop().time())
            return {}

        stats = RecordedStats(AUTOSCALING, record, interval_s=lambda: interval_s, timeout_s=lambda: 10.0, read=numbers)
        task = asyncio.create_task(stats.run())
        await asyncio.sleep(1.0)
        interval_s = 2.0
        await asyncio.sleep(20.0)
        task.cancel()
        assert len(asked) >= 5
        assert asked[1] - asked[0] <= 11.0

    run_in_fake_time(main())


@pytest.mark.parametrize("answer", [None, [1], {"a": "b"}, {1: 2}, {"a": True}])
def test_what_is_no_dict_of_numbers_counts_for_nothing(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    async def record() -> object:
        return answer

    assert watch(record) == {}
    assert caplog.text.count("must return a dict of numbers") == 1


def test_a_name_that_is_not_in_unicode_can_be_reported() -> None:
    """As of a file: the report would break the replica's stream to the controller, each time."""
    (name,) = numbers({"queue of \udcff": 1})
    assert control_pb2.DeploymentLoad(stats={name: 1.0}).stats == {"queue of \\udcff": 1.0}


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


class BoomError(BaseException):
    """Nothing that `except Exception` catches."""


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (BoomError("boom"), "BoomError: boom"),
        (UnspeakableError(), "UnspeakableError"),
    ],
)
def test_a_hook_that_raises_anything_has_failed_and_is_asked_again(
    error: BaseException, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its last figures must not stay for the rest of the life of the replica."""
    answers = iter([{"a": 1}, error, {"a": 3}])

    async def record() -> object:
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    told: list[Any] = []
    watch(record, told=told)
    assert told == [{"a": 1.0}, {}, {"a": 3.0}]
    assert f"record_autoscaling_stats failed: {text}" in caplog.text


def test_every_answer_is_passed_on_and_a_failure_as_nothing() -> None:
    """Callers learn of each change; an old figure would mislead them."""
    answers = iter([{"a": 1}, ZeroDivisionError("never"), {"a": 3}])

    async def record() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    told: list[Any] = []
    watch(record, told=told)
    assert told == [{"a": 1.0}, {}, {"a": 3.0}]


def test_request_routers_get_values_as_json_has_them() -> None:
    """What JSON cannot carry is refused, and so is what is too much for every caller (item 155)."""
    assert json_values({"queue": [1, 2.5], "place": ("a", None)}) == {"queue": [1, 2.5], "place": ["a", None]}
    with pytest.raises(TypeError, match="must return a dict of JSON values by name, it returned None"):
        json_values(None)
    with pytest.raises(TypeError, match="must return a dict of JSON values by name"):
        json_values({1: 2})
    with pytest.raises(TypeError, match="must return a dict of JSON values by name: Object of type bytes"):
        json_values({"a": b"b"})
    with pytest.raises(ValueError, match="callers take 16384"):
        json_values({"a": "b" * 16_384})


def lists(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("depth", "message"), [(100, "nested more than 100 deep"), (300, "nested more than 100 deep"), (5_000, "recursion")]
)
def test_what_is_nested_too_deep_for_callers_is_refused(depth: int, message: str) -> None:
    """It would break the links of all callers, with the calls on them (item 155)."""
    with pytest.raises((ValueError, RecursionError), match=message):
        json_values({"a": lists(depth)})
    assert json_values({"a": lists(99)}) == {"a": lists(99)}


def test_wrong_metadata_stops_the_start_and_names_the_hook() -> None:
    """Routing by what is not there would be worse than no replica (item 155)."""

    async def record(hook: str) -> object:
        return hook

    with pytest.raises(TypeError, match="it returned 'record_replica_metadata'") as caught:
        asyncio.run(metadata_of(record))
    assert caught.value.__notes__ == ["in record_replica_metadata"]
