"""mesh.controller.hang_rule: what tells a loop that hangs from a machine that is busy or was suspended."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.hang_rule import LoopReading, WatchedLoop


def watched(interval_s: float = 1.0) -> WatchedLoop:
    return WatchedLoop(last=LoopReading(at_s=0.0, beats=0), interval_s=interval_s)


def after(*readings: tuple[float, int, float]) -> WatchedLoop:
    """The loop after readings of (at_s, beats, starved_s)."""
    loop = watched()
    for at_s, beats, starved_s in readings:
        loop = loop.checked(LoopReading(at_s=at_s, beats=beats, starved_s=starved_s))
    return loop


def test_a_loop_that_stands_still_is_counted() -> None:
    assert after((1, 0, 0), (2, 0, 0), (3.1, 0, 0)).still_s == 3


def test_one_beat_ends_the_count() -> None:
    assert after((1, 0, 0), (2, 0, 0), (3, 1, 0)).still_s == 0


def test_a_process_that_was_stopped_has_not_hung() -> None:
    """The first check after an hour comes late itself, and shows nothing."""
    assert after((1, 0, 0), (3601, 0, 0)).still_s == 1
    assert after((3600, 0, 0), (3601, 1, 0)).still_s == 0


def test_a_loop_without_a_processor_has_not_hung() -> None:
    assert after((1, 0, 0.9), (2, 0, 1.8), (3, 0, 2.0)).still_s == 1


@given(st.lists(st.tuples(st.floats(2.01, 1e6), st.floats(0.0, 1e6))))
def test_late_checks_never_make_a_loop_hang(steps: list[tuple[float, float]]) -> None:
    loop, at_s, starved_s = watched(), 0.0, 0.0
    for passed_s, waited_s in steps:
        at_s, starved_s = at_s + passed_s, starved_s + waited_s
        loop = loop.checked(LoopReading(at_s=at_s, beats=0, starved_s=starved_s))
    assert loop.still_s == 0


@given(st.lists(st.booleans(), min_size=1))
def test_only_the_checks_since_the_last_beat_count(beats: list[bool]) -> None:
    loop, count = watched(), 0
    for number, has_beaten in enumerate(beats, start=1):
        count += has_beaten
        loop = loop.checked(LoopReading(at_s=number, beats=count))
    assert loop.missed == len(beats) - max((number for number, beat in enumerate(beats, start=1) if beat), default=0)
