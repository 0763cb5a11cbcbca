"""mesh.link.link_phases: which events each end of a link expects, and when."""

import pytest

from mesh.link.link_phases import (
    CALLEE_TRANSITIONS,
    CALLER_TRANSITIONS,
    CalleeEvent,
    CalleePhase,
    CallerEvent,
    CallerPhase,
)
from mesh.phases.transitions import WrongTransitionError, next_state


def callee_after(*events: CalleeEvent) -> CalleePhase:
    phase = CalleePhase.OPEN
    for event in events:
        phase = next_state(CALLEE_TRANSITIONS, phase, event)
    return phase


def test_the_caller_has_left_once_it_has_acknowledged_the_drain() -> None:
    assert callee_after(CalleeEvent.DRAIN) is CalleePhase.DRAINING
    assert callee_after(CalleeEvent.DRAIN, CalleeEvent.ACKNOWLEDGE) is CalleePhase.LEFT


def test_a_repeated_drain_and_its_acknowledgement_change_nothing() -> None:
    events = (CalleeEvent.DRAIN, CalleeEvent.ACKNOWLEDGE)
    assert callee_after(CalleeEvent.DRAIN, *events, *events) is CalleePhase.LEFT


def test_a_caller_cannot_acknowledge_a_drain_that_it_was_not_sent() -> None:
    with pytest.raises(WrongTransitionError, match="ACKNOWLEDGE while OPEN"):
        callee_after(CalleeEvent.ACKNOWLEDGE)


@pytest.mark.parametrize("phase", [phase for phase in CalleePhase if phase is not CalleePhase.CLOSED])
def test_a_callees_stream_may_end_in_every_phase(phase: CalleePhase) -> None:
    assert next_state(CALLEE_TRANSITIONS, phase, CalleeEvent.CLOSE) is CalleePhase.CLOSED


@pytest.mark.parametrize("phase", [phase for phase in CallerPhase if phase is not CallerPhase.CLOSED])
def test_a_callers_stream_may_break_in_every_phase(phase: CallerPhase) -> None:
    assert next_state(CALLER_TRANSITIONS, phase, CallerEvent.BREAK) is CallerPhase.CLOSED


def test_a_welcome_comes_once() -> None:
    ready = next_state(CALLER_TRANSITIONS, CallerPhase.CONNECTING, CallerEvent.WELCOME)
    with pytest.raises(WrongTransitionError, match="WELCOME while READY"):
        next_state(CALLER_TRANSITIONS, ready, CallerEvent.WELCOME)


def test_a_draining_caller_stays_so_when_the_welcome_comes_late() -> None:
    draining = next_state(CALLER_TRANSITIONS, CallerPhase.CONNECTING, CallerEvent.DRAIN)
    assert next_state(CALLER_TRANSITIONS, draining, CallerEvent.WELCOME) is CallerPhase.DRAINING


@pytest.mark.parametrize(
    "event", [*CallerEvent, *CalleeEvent], ids=lambda event: f"{type(event).__name__}.{event.name}"
)
def test_nothing_happens_on_a_closed_link(event: CallerEvent | CalleeEvent) -> None:
    closed = {CallerEvent: CallerPhase.CLOSED, CalleeEvent: CalleePhase.CLOSED}[type(event)]
    assert (closed, event) not in {**CALLER_TRANSITIONS, **CALLEE_TRANSITIONS}
