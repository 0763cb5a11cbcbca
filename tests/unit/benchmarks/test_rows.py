"""benchmarks.rows: every figure that is measured has a title, and every title is one row."""

import pytest

from benchmarks.closed_loop import Lap
from benchmarks.rows import AT_TWO_HOPS, ROWS, figures
from benchmarks.targets import TARGETS

LAP = Lap(calls=1_000, rate=500.0, p50_us=80.0, p99_us=200.0)
CPU_US = {"front": 20.0, "caller": 30.0, "replica": 15.0}


def test_a_row_of_calls_has_a_rate_latencies_and_the_cost_of_each_process() -> None:
    assert dict(figures("gateway_two_hops", LAP, CPU_US)) == {
        "gateway_two_hops": 500,
        "gateway_two_hops_p50": 80,
        "gateway_two_hops_p99": 200,
        "gateway_two_hops_cpu_front": 20,
        "gateway_two_hops_cpu_caller": 30,
        "gateway_two_hops_cpu_replica": 15,
        "gateway_two_hops_cpu": 65,
    }


def test_every_figure_has_a_title() -> None:
    assert tuple(CPU_US) == AT_TWO_HOPS
    assert {key for key, _ in figures("gateway_two_hops", LAP, CPU_US)} <= ROWS.keys()


def test_titles_are_unique_but_for_failed_calls() -> None:
    titles = [title for key, title in ROWS.items() if not key.endswith("_failed")]
    assert len(titles) == len(set(titles))


def test_targets_name_rows_that_exist() -> None:
    assert {target.row for target in TARGETS} <= ROWS.keys()


@pytest.mark.parametrize("row", ["handle_stream", "gateway_stream"])
def test_of_a_stream_items_cost_and_whole_streams_take_time(row: str) -> None:
    assert ROWS[row].endswith("items/s")
    assert ROWS[f"{row}_p50"].endswith("median time of a stream of 1,000 items, µs")
    assert ROWS[f"{row}_cpu_replica"].endswith("CPU of the replica, µs per item")


def test_every_row_of_calls_or_streams_has_latencies_and_cpu_time() -> None:
    rates = [key for key, title in ROWS.items() if title.endswith(("calls/s", "req/s", "items/s", "messages/s"))]
    assert len(rates) > 20
    assert {f"{key}{suffix}" for key in rates for suffix in ("_p50", "_p99", "_cpu")} <= ROWS.keys()
