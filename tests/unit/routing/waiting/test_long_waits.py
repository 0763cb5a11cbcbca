"""mesh.routing.waiting.long_waits: when the warning comes. Time is a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.routing.waiting import long_waits
from mesh.routing.waiting.long_waits import LongWaits


class FakeTimers:
    """The clock, and the delays of the timers that were started."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.delays_s: list[float] = []
        self.early_s = 0.0
        self._callback: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        self.delays_s.append(delay_s)
        self._callback = callback
        return self

    def fire(self) -> None:
        self.now_s += self.delays_s[-1] - self.early_s
        self._callback()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> FakeTimers:
    timers = FakeTimers()
    monkeypatch.setattr(long_waits, "time", timers)
    monkeypatch.setattr(long_waits, "io_thread", lambda: SimpleNamespace(loop=timers))
    return timers


def call_of(started_at_s: float) -> Any:
    return SimpleNamespace(started_at_s=started_at_s)


def test_the_oldest_call_is_named_when_it_has_waited_that_long_also_by_a_timer_that_fires_early(
    timers: FakeTimers, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for all that wait (item 162)."""
    timers.early_s = 0.001
    calls = [call_of(100.0), call_of(119.0)]
    LongWaits(calls, lambda call: f"waited since {call.started_at_s:g}").begin()
    timers.fire()
    assert [record.getMessage() for record in caplog.records] == ["a call has waited since 100 (1 other waits too)"]
    assert timers.delays_s == [20.0, 20.0]


def test_a_younger_call_is_looked_at_when_its_time_has_come(
    timers: FakeTimers, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it has been served (item 162)."""
    calls = [call_of(100.0), call_of(105.0)]
    LongWaits(calls, lambda call: f"waited since {call.started_at_s:g}").begin()
    del calls[0]
    timers.fire()
    assert (timers.delays_s, caplog.records) == ([20.0, 5.0], [])
    timers.fire()
    assert [record.getMessage() for record in caplog.records] == ["a call has waited since 105"]


def test_nothing_is_looked_at_while_no_call_waits(timers: FakeTimers, caplog: pytest.LogCaptureFixture) -> None:
    """The next call that waits starts the timer again (item 162)."""
    calls = [call_of(100.0)]
    waits = LongWaits(calls, lambda call: "waited")
    waits.begin()
    waits.begin()
    calls.clear()
    timers.fire()
    assert (timers.delays_s, caplog.records) == ([20.0], [])
    calls.append(call_of(timers.now_s))
    waits.begin()
    assert timers.delays_s == [20.0, 20.0]
