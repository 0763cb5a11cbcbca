"""What a connection needs at each look, in fake time."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.http2.upkeep import Upkeep, UpkeepClock, UpkeepPolicy, Vitals

POLICY = UpkeepPolicy(idle_timeout_s=300, age_max_s=1_000)
MIB = 1024 * 1024


def vitals(**changes: Any) -> Vitals:
    usual = {"reads": 0, "streams": 1, "awaited_stream": None, "is_paused": False, "is_draining": False}
    return Vitals(**{**usual, **changes})


def first(policy: UpkeepPolicy = POLICY, seconds: int = 2_000, **changes: Any) -> tuple[int, Upkeep] | None:
    """When something is first to be done, and what, if the connection stays as it is."""
    clock = UpkeepClock(0)
    for second in range(seconds):
        found = clock.check(vitals(**changes), policy, second)
        if found is not None:
            return second, found
    return None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (60, Upkeep.PING)),
        ({"awaited_stream": 1}, (10, Upkeep.SLOW)),
        ({"is_draining": True}, (1, Upkeep.FINISH_DRAIN)),
    ],
)
def test_the_first_thing_to_be_done(changes: dict[str, Any], expected: tuple[int, Upkeep]) -> None:
    assert first(**changes) == expected


def busy(second: int, **changes: Any) -> Vitals:
    """Bytes come all the time."""
    return vitals(reads=second, **changes)


def looks(changes: Any, seconds: int, policy: UpkeepPolicy = POLICY) -> list[tuple[int, Upkeep]]:
    clock = UpkeepClock(0)
    found = [(second, clock.check(busy(second, **changes(second)), policy, second)) for second in range(seconds)]
    return [(second, each) for second, each in found if each is not None]


@pytest.mark.parametrize(("factor", "expected_s"), [(0.9, 900), (1.0, 1_000), (1.1, 1_100)])
def test_connections_that_were_opened_together_reach_different_ages(factor: float, expected_s: int) -> None:
    clock = UpkeepClock(0, factor)
    found = (second for second in range(2_000) if clock.check(busy(second), POLICY, second) is Upkeep.DRAIN)
    assert next(found) == expected_s


def test_a_busy_peer_may_be_found_in_the_middle_of_headers_at_each_look() -> None:
    """Of another stream each time; only one that does not get on with the same headers is slow."""
    assert looks(lambda second: {"awaited_stream": 2 * second + 1}, 100) == []
    assert looks(lambda second: {"awaited_stream": 1 if second < 9 else 3}, 20) == [(19, Upkeep.SLOW)]


def test_a_peer_that_sends_needs_no_ping() -> None:
    assert looks(lambda second: {}, 1_000) == []


def test_a_silent_peer_is_pinged_and_given_up_when_it_stays_silent() -> None:
    clock = UpkeepClock(0)
    found = [(second, clock.check(vitals(), POLICY, second)) for second in range(100)]
    assert [each for each in found if each[1]][:2] == [(60, Upkeep.PING), (80, Upkeep.GONE)]


def test_a_silent_peer_is_given_up_while_its_connection_drains_too() -> None:
    """A drain may last as long as its streams do: one of a host that has vanished would never end."""
    policy = UpkeepPolicy(drain_timeout_s=float("inf"))
    clock = UpkeepClock(0)
    found = [(second, clock.check(vitals(is_draining=True), policy, second)) for second in range(100)]
    assert (1, Upkeep.FINISH_DRAIN) in found
    assert [each for each in found if each[1] in (Upkeep.PING, Upkeep.GONE)][:2] == [
        (60, Upkeep.PING),
        (80, Upkeep.GONE),
    ]


def test_an_answer_to_the_ping_keeps_the_connection() -> None:
    clock, answers = UpkeepClock(0), 0
    for second in range(500):
        found = clock.check(vitals(reads=answers), POLICY, second)
        assert found in (None, Upkeep.PING)
        answers += found is Upkeep.PING
    assert answers == 8


def test_a_peer_that_reads_nothing_is_given_up() -> None:
    assert looks(lambda second: {"is_paused": True}, 100)[0] == (60, Upkeep.UNREAD)
    assert looks(lambda second: {"is_paused": second % 50 != 0}, 200) == []


def test_an_idle_connection_and_an_old_one_are_drained() -> None:
    assert looks(lambda second: {"streams": 0}, 400)[0] == (300, Upkeep.DRAIN)
    assert looks(lambda second: {}, 1_100)[0] == (1_000, Upkeep.DRAIN)


def test_a_drain_has_an_end() -> None:
    found = looks(lambda second: {"is_draining": True}, 100)
    assert (30, Upkeep.END_DRAIN) in found


def test_a_large_backlog_may_last_while_it_is_taken_fast_enough() -> None:
    def slow(second: int) -> dict[str, int]:
        return {"pending_bytes": 100 * MIB, "sent_bytes": second * MIB}

    assert looks(slow, 900) == []


def test_a_large_backlog_that_only_drips_ends_the_connection() -> None:
    def dripping(second: int) -> dict[str, int]:
        return {"pending_bytes": 17 * MIB, "sent_bytes": second * 1_000}

    assert looks(dripping, 100)[0] == (30, Upkeep.BEHIND)


def test_a_small_backlog_may_wait_for_a_slow_consumer() -> None:
    assert looks(lambda second: {"pending_bytes": 15 * MIB}, 900) == []


def test_a_backlog_that_was_taken_in_between_starts_afresh() -> None:
    def in_waves(second: int) -> dict[str, int]:
        return {"pending_bytes": 20 * MIB if second % 20 else 0}

    assert looks(in_waves, 500) == []
