"""benchmarks.closed_loop: exact numbers of calls and their percentiles."""

import asyncio

from benchmarks.closed_loop import counted_loop, lap_of, timed_loop


def test_percentiles_are_latencies_that_occurred() -> None:
    lap = lap_of([float(number) for number in range(100, 0, -1)], rate=50)
    assert (lap.calls, lap.rate, lap.p50_us, lap.p99_us) == (100, 50, 51, 100)


def test_one_call_is_its_own_percentile() -> None:
    lap = lap_of([7.0], rate=1)
    assert lap.p50_us == lap.p99_us == 7


def test_every_caller_makes_the_same_number_of_calls() -> None:
    in_flight, most = 0, 0

    async def call() -> int:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return 1

    lap = asyncio.run(counted_loop(call, in_flight=4, calls=10))
    assert lap.calls == 12
    assert most == 4
    assert lap.rate > 0


def test_a_timed_loop_counts_items_and_times_whole_streams() -> None:
    async def stream() -> int:
        return 1_000

    lap = asyncio.run(timed_loop(stream, seconds=0))
    assert lap.calls == 1_000
    assert lap.p50_us == lap.p99_us
    assert lap.rate > 0
