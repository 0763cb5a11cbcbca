"""mesh.controller.event_log: the controller's log lines, bounded, and kept over its restarts."""

import asyncio
import logging

import pytest

from mesh.cluster.keys import EVENTS_KEY
from mesh.controller.event_log import EventLog
from mesh.controller.store.desired_store import StateStore
from mesh.settings import settings
from tests.sim.fake_time import run_in_fake_time
from tests.unit.controller.dict_kv import DictKeyValue


def log(events: EventLog, *texts: str, level: int = logging.INFO) -> None:
    for text in texts:
        events.handle(logging.LogRecord("mesh", level, "f.py", 1, "%s", (text,), None))


def texts(events: EventLog, after: int = 0) -> list[str]:
    return [event.text for event in events.since(after)]


def test_events_are_bounded_in_number_and_length() -> None:
    events = EventLog(lambda: 1.0)
    log(events, *(f"{number} " + "x" * 9999 + "\ntraceback" for number in range(9999)))
    kept = texts(events)
    assert (len(kept), kept[-1][:5]) == (settings().controller.events_kept, "9998 ")
    assert max(map(len, kept)) == 400


def test_a_text_that_is_not_in_unicode_is_an_event_too() -> None:
    events = EventLog(lambda: 1.0)
    log(events, "no file \udcff")
    assert texts(events) == ["no file \\udcff"]


def test_records_of_other_libraries_are_no_events() -> None:
    events = EventLog(lambda: 1.0)
    for name in ("mesh", "mesh.rpc", "meshes", "asyncio"):
        events.handle(logging.LogRecord(name, logging.WARNING, "f.py", 1, name, (), None))
    assert texts(events) == ["mesh", "mesh.rpc"]


def test_a_reader_goes_on_after_the_last_event_it_has_seen() -> None:
    """All numbers differ, also of events of one instant."""
    events = EventLog(lambda: 1.0)
    log(events, "one", "two")
    last = events.since(0)[-1].number
    log(events, "three", level=logging.WARNING)
    assert texts(events, last) == ["three"]
    assert [event.is_warning for event in events.since(0)] == [False, False, True]


def test_the_next_controller_has_the_events_of_the_one_before() -> None:
    """Its first events come after them, and readers go on."""

    async def main() -> None:
        kv = DictKeyValue()
        old = EventLog(lambda: 1.0)
        keeping = asyncio.create_task(old.keep(StateStore(kv)))
        log(old, "one", "two")
        await asyncio.sleep(settings().controller.events_interval_s + 1)
        log(old, "never stored")
        keeping.cancel()
        new = EventLog(lambda: 2.0)
        log(new, "started")
        await new.load(StateStore(kv))
        assert texts(new) == ["one", "two", "started"]
        assert texts(new, old.since(0)[-1].number) == ["started"]

    run_in_fake_time(main())


def test_events_that_cannot_be_read_stop_no_controller(caplog: pytest.LogCaptureFixture) -> None:
    """They are lost, which is an event, and those that come are kept."""

    async def main() -> None:
        kv = DictKeyValue()
        kv.put(EVENTS_KEY, b"\xff")
        events, store = EventLog(lambda: 1.0), StateStore(kv)
        log(events, "started")
        logging.getLogger("mesh").addHandler(events)
        try:
            await events.load(store)
        finally:
            logging.getLogger("mesh").removeHandler(events)
        assert [text.partition(" cannot")[0] for text in texts(events)] == [
            "started",
            f"the events before, {EVENTS_KEY} of the cluster's key-value store,",
        ]
        events.save(store)
        after = EventLog(lambda: 2.0)
        await after.load(store)
        assert texts(after) == texts(events)

    run_in_fake_time(main())
    assert len(caplog.records) == 1


def test_a_store_that_fails_is_tried_again() -> None:
    async def main() -> None:
        kv = DictKeyValue()
        store, events = StateStore(kv), EventLog(lambda: 1.0)
        store.claim()
        newer = StateStore(kv)
        newer.claim()
        keeping = asyncio.create_task(events.keep(store))
        log(events, "of a controller that was replaced")
        await asyncio.sleep(20)
        assert store.load_events() == b"", "only the newest controller stores anything"
        store.epoch = newer.epoch
        await asyncio.sleep(20)
        assert b"replaced" in store.load_events()
        keeping.cancel()

    run_in_fake_time(main())


def test_a_controller_that_ends_stores_its_last_events_first() -> None:
    store, events = StateStore(DictKeyValue()), EventLog(lambda: 1.0)
    log(events, "the event loop has hung for 60 s")
    events.save(store)
    new = EventLog(lambda: 2.0)
    run_in_fake_time(new.load(store))
    assert texts(new) == ["the event loop has hung for 60 s"]
