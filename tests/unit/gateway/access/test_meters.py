"""gateway.access.meters: token buckets and their table, with time passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.meters import Limit, Meter, MeterTable


def began(meter: Meter, now_s: float) -> bool:
    """Begin a call if it is allowed."""
    if meter.wait_s(now_s) != 0.0:
        return False
    meter.take(now_s)
    return True


@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 100),
    pauses=st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_no_more_calls_than_burst_and_rate_allow(rate: float, burst: float, pauses: list[float]) -> None:
    """In any stretch of time from the first call on."""
    meter, now_s, accepted = Meter(Limit(rate_per_s=rate, burst=burst), 0.0), 0.0, 0
    for pause_s in pauses:
        now_s += pause_s
        accepted += began(meter, now_s)
        assert accepted <= burst + rate * now_s + 1e-6


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 50), at_s=st.floats(0, 1e6))
def test_after_the_time_that_it_names_a_call_is_allowed(rate: float, burst: int, at_s: float) -> None:
    meter = Meter(Limit(rate_per_s=rate, burst=burst), at_s)
    assert sum(began(meter, at_s) for _ in range(burst + 5)) == burst
    wait_s = meter.wait_s(at_s)
    assert wait_s is not None
    assert 0 < wait_s <= 1 / rate + 1e-6
    # A little later, as the bucket's level is a float.
    assert began(meter, at_s + wait_s * (1 + 1e-9) + 1e-6)


def test_a_burst_comes_back_after_a_pause_and_no_more() -> None:
    meter = Meter(Limit(rate_per_s=2, burst=3), 0.0)
    assert [began(meter, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [began(meter, 1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    meter = Meter(Limit(rate_per_s=1, burst=1), 100.0)
    assert began(meter, 100.0)
    assert not began(meter, 50.0)
    assert not began(meter, 100.5)
    assert began(meter, 101.0)


def test_concurrent_calls_are_limited_until_one_ends() -> None:
    meter = Meter(Limit(concurrent_max=2), 0.0)
    assert [began(meter, 0.0) for _ in range(3)] == [True, True, False]
    assert meter.wait_s(1e9) is None
    meter.give_back()
    assert began(meter, 0.0)


LIMIT = Limit(rate_per_s=1, burst=1, concurrent_max=5)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 0.5), st.booleans()), max_size=300))
def test_a_table_stays_small_and_no_key_exceeds_its_limit(calls: list[tuple[int, float, bool]]) -> None:
    """Forgetting idle meters gives no key more; only one that comes to share gets at most its limit once more."""
    table, now_s = MeterTable(8), 0.0
    accepted: dict[int, list[float]] = {}
    for key, pause_s, ends in calls:
        now_s += pause_s
        meter = table.meter(key, lambda: LIMIT, now_s)
        if began(meter, now_s):
            accepted.setdefault(key, []).append(now_s)
            if ends:
                meter.give_back()
        assert len(table) <= 8
    for times in accepted.values():
        for index in range(len(times) - 2):
            assert times[index + 2] - times[index] >= 1 - 1e-6


def test_keys_share_a_meter_while_all_are_busy() -> None:
    table = MeterTable(2)
    busy, ended = (table.meter(key, lambda: LIMIT, 0.0) for key in "ab")
    assert began(busy, 0.0)
    assert began(ended, 0.0)
    shared = table.meter("c", lambda: LIMIT, 0.0)
    assert shared is table.meter("d", lambda: LIMIT, 0.0)
    ended.give_back()
    assert table.meter("e", lambda: LIMIT, 10.0) is not shared
    assert len(table) == 2
    assert (busy.is_forgotten, ended.is_forgotten) == (False, True)
