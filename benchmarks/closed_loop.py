"""Closed loops: callers that each wait for an answer before their next call, for a time or for a number of calls."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

WARM_UP_SHARE = 0.2

Call = Callable[[], Awaitable[int]]
"""Does one round and returns its number of calls or items."""


@dataclass(frozen=True)
class Lap:
    """An exact number of calls, or of streams."""

    calls: int
    """Of streams: their items."""
    rate: float
    """Calls or items per second."""
    p50_us: float
    """Of a call, or of a whole stream."""
    p99_us: float


def lap_of(latencies_us: Sequence[float], rate: float) -> Lap:
    ordered = sorted(latencies_us)
    calls = len(ordered)
    return Lap(calls, rate, ordered[calls // 2], ordered[calls * 99 // 100])


async def closed_loop(call: Call, in_flight: int, seconds: float) -> float:
    """Calls per second of `in_flight` callers."""
    done = 0
    is_over = False

    async def caller() -> None:
        nonlocal done
        while not is_over:
            count = await call()
            done += count

    callers = [asyncio.create_task(caller()) for _ in range(in_flight)]
    await asyncio.sleep(seconds * WARM_UP_SHARE)
    started, done_before = time.perf_counter(), done
    await asyncio.sleep(seconds)
    rate = (done - done_before) / (time.perf_counter() - started)
    is_over = True
    await asyncio.gather(*callers)
    return rate


async def timed_loop(call: Call, seconds: float) -> Lap:
    """One round after the other for a time, at least one. Latencies are of rounds, calls and rate of their items."""
    latencies_us: list[float] = []
    done = 0
    started_at_s = now_s = time.perf_counter()
    while not latencies_us or now_s - started_at_s < seconds:
        began_at_s = now_s
        done += await call()
        now_s = time.perf_counter()
        latencies_us.append((now_s - began_at_s) * 1e6)
    return replace(lap_of(latencies_us, done / (now_s - started_at_s)), calls=done)


async def counted_loop(call: Call, in_flight: int, calls: int) -> Lap:
    """`calls` calls by `in_flight` callers, rounded up to the same number for each."""
    latencies_us: list[float] = []

    async def caller() -> None:
        for _ in range(-(-calls // in_flight)):
            began_s = time.perf_counter()
            await call()
            latencies_us.append((time.perf_counter() - began_s) * 1e6)

    started_at_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return lap_of(latencies_us, len(latencies_us) / (time.perf_counter() - started_at_s))
