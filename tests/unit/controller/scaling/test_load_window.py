"""mesh.controller.scaling.load_window: averages over time (item 227)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.scaling.load_window import LoadWindow

LOOK_BACK_S = 30.0

samples = st.lists(st.tuples(st.floats(0.01, 20.0), st.floats(0, 100)), min_size=1, max_size=300)


def window_of(*seen: tuple[float, float], look_back_s: float = LOOK_BACK_S) -> LoadWindow:
    window = LoadWindow()
    for now_s, requests in seen:
        window = window.with_sample(now_s, requests, look_back_s)
    return window


def test_a_load_counts_for_as_long_as_it_lasted() -> None:
    window = window_of((0.0, 10.0), (1.0, 0.0), (10.0, 5.0))
    assert window.aggregate("mean", 10.0) == pytest.approx(1.0)
    assert window.aggregate("mean", 20.0) == pytest.approx((10 + 50) / 20)
    assert window.aggregate("max", 20.0) == 10.0
    assert window.aggregate("min", 20.0) == 0.0


def test_what_is_older_than_the_period_is_forgotten() -> None:
    window = window_of((0.0, 100.0), (5.0, 2.0), (35.0, 2.0))
    assert window.aggregate("mean", 35.0) == pytest.approx(2.0)
    assert window.aggregate("max", 35.0) == 2.0


def test_a_load_that_reaches_into_the_period_counts_from_its_beginning() -> None:
    window = window_of((0.0, 100.0), (40.0, 0.0))
    assert window.aggregate("mean", 40.0) == pytest.approx(100.0)
    assert window_of((0.0, 100.0), (40.0, 0.0), (55.0, 0.0)).aggregate("mean", 55.0) == pytest.approx(50.0)


def test_the_first_sample_speaks_for_itself() -> None:
    assert window_of((7.0, 3.0)).aggregate("mean", 7.0) == 3.0
    assert LoadWindow().aggregate("mean", 7.0) == 0.0


@given(samples)
def test_an_average_lies_between_the_least_and_the_most(seen: list[tuple[float, float]]) -> None:
    now_s, window = 0.0, LoadWindow()
    for pause_s, requests in seen:
        now_s += pause_s
        window = window.with_sample(now_s, requests, LOOK_BACK_S)
        mean, low, high = (window.aggregate(how, now_s) for how in ("mean", "min", "max"))
        assert low - 1e-6 <= mean <= high + 1e-6


@given(st.floats(0, 100), st.lists(st.floats(0.01, 20.0), min_size=1, max_size=100))
def test_steady_load_is_its_own_average(requests: float, pauses: list[float]) -> None:
    now_s, window = 0.0, LoadWindow()
    for pause_s in pauses:
        now_s += pause_s
        window = window.with_sample(now_s, requests, LOOK_BACK_S)
        assert window.aggregate("mean", now_s) == pytest.approx(requests)
        assert len(window.steps) <= 2


def test_a_window_stays_small_however_often_it_is_looked_at() -> None:
    window = LoadWindow()
    for look in range(100_000):
        window = window.with_sample(look * 0.001, float(look % 7), LOOK_BACK_S)
    assert len(window.steps) <= 130
    assert window.aggregate("mean", 100.0) == pytest.approx(3.0, abs=0.5)
