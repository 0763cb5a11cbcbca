"""mesh.controller.report.loop_metrics: what turns, streams and the store cost, as numbers."""

import asyncio
import itertools

import pytest

from mesh.controller.plan.actions import KillGateway, Reason, StopReplica
from mesh.controller.report.loop_metrics import (
    ACTIONS,
    PUBLISH_AGE,
    STORE_CALLS,
    STORE_FAILURES,
    STORE_SECONDS,
    STREAMS,
    STREAMS_BEHIND,
    TURN_SECONDS,
    TURNS,
    LoopTimes,
    TurnPart,
    TurnResult,
    loop_samples,
)
from mesh.controller.report.publisher import Publisher
from mesh.controller.store.desired_store import StoreError
from mesh.controller.store.timed_key_value import TimedKeyValue
from mesh.v1 import control_pb2
from mesh.wire.telemetry import Family
from tests.unit.controller.builders import KEY
from tests.unit.controller.dict_kv import DictKeyValue

Values = dict[tuple[str, ...], float]


class FailingKeyValue(DictKeyValue):
    def put(self, key: str, value: bytes) -> None:
        raise StoreError("away")


def values(times: LoopTimes, publisher: Publisher, store: TimedKeyValue) -> dict[Family, Values]:
    samples = loop_samples(times, publisher, store)
    return {family: {each.label_values: each.value for each in found} for family, found in samples}


def nothing() -> tuple[LoopTimes, Publisher, TimedKeyValue]:
    return LoopTimes(lambda: 7.0), Publisher(1), TimedKeyValue(DictKeyValue())


def test_turns_are_counted_with_the_time_of_their_parts() -> None:
    """A part that raises counts too; only a turn that ended well makes the last one younger."""
    clock = itertools.count(10.0)
    stopwatch = itertools.count(0.0, 0.25)
    times = LoopTimes(lambda: next(clock), lambda: next(stopwatch))
    with times.part(TurnPart.PLAN):
        pass
    times.ended(TurnResult.DONE)
    with pytest.raises(ZeroDivisionError), times.part(TurnPart.PLAN):
        raise ZeroDivisionError
    times.ended(TurnResult.FAILED)
    found = values(times, Publisher(1), TimedKeyValue(DictKeyValue()))
    assert times.turned_at_s == 11.0
    assert found[TURNS] == {("done",): 1, ("failed",): 1}
    assert found[TURN_SECONDS] == {(each,): 0.5 if each is TurnPart.PLAN else 0.0 for each in TurnPart}


def test_what_was_begun_is_counted_and_how_old_the_last_publication_is() -> None:
    """One that fails brings nothing up to date."""
    clock = iter([10.0, 12.0, 13.5, 20.0])
    times = LoopTimes(lambda: next(clock), lambda: 0.0)
    for action in (StopReplica("r1", Reason.SCALE_DOWN), StopReplica("r2", Reason.SCALE_DOWN)):
        times.began(action)
    times.began(KillGateway("g1", Reason.OVERDUE))
    with times.part(TurnPart.PUBLISH):
        pass
    found = values(times, Publisher(1), TimedKeyValue(DictKeyValue()))
    assert {name: count for name, count in found[ACTIONS].items() if count} == {
        ("stop_replica",): 2,
        ("kill_gateway",): 1,
    }
    assert found[PUBLISH_AGE] == {(): 1.5}
    with pytest.raises(ZeroDivisionError), times.part(TurnPart.PUBLISH):
        raise ZeroDivisionError
    assert values(times, Publisher(1), TimedKeyValue(DictKeyValue()))[PUBLISH_AGE] == {(): 8.0}


def test_streams_are_counted_by_kind_and_those_that_do_not_read() -> None:
    async def scenario() -> None:
        times, publisher, store = nothing()
        kinds = (control_pb2.PROCESS_KIND_CALLER, control_pb2.PROCESS_KIND_CALLER, control_pb2.PROCESS_KIND_REPLICA)
        first, *_ = [
            publisher.open(control_pb2.ProcessHello(process_id=f"p{number}", kind=kind))
            for number, kind in enumerate(kinds)
        ]
        publisher.subscribe(first, [KEY])
        found = values(times, publisher, store)
        assert found[STREAMS] == {("caller",): 2, ("replica",): 1, ("gateway",): 0}
        assert found[STREAMS_BEHIND] == {(): 1}
        await publisher.next_update(first)
        waiting = asyncio.create_task(publisher.next_update(first))
        await asyncio.sleep(0)
        assert values(times, publisher, store)[STREAMS_BEHIND] == {(): 0}
        waiting.cancel()

    asyncio.run(scenario())


def test_requests_to_the_store_are_timed_and_failures_counted() -> None:
    stopwatch = itertools.count(0.0, 0.5)
    store = TimedKeyValue(FailingKeyValue(), lambda: next(stopwatch))
    assert store.get("a") is None
    assert store.keys("a") == []
    store.delete("a")
    with pytest.raises(StoreError):
        store.put("a", b"")
    found = values(LoopTimes(lambda: 0.0), Publisher(1), store)
    assert found[STORE_CALLS] == {(each,): 1 for each in ("get", "put", "delete", "keys")}
    assert found[STORE_FAILURES] == {("get",): 0, ("put",): 1, ("delete",): 0, ("keys",): 0}
    assert found[STORE_SECONDS] == {(each,): 0.5 for each in ("get", "put", "delete", "keys")}
