"""CPU time of a piece of code in seconds of an idle core, whatever else the machine does."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

RUNS = 5
LOOP_S = 0.009
"""What `known_loop` takes of an idle core of the machine that the budgets are for."""


@dataclass
class Spent:
    """CPU time of this thread in seconds of an idle core."""

    s: float = 0.0


@contextmanager
def measured() -> Iterator[Spent]:
    """Without the garbage collector: what it takes depends on what the tests before have left."""
    spent, slow = Spent(), slowness()
    gc.disable()
    began_s = time.thread_time()
    try:
        yield spent
        spent.s = time.thread_time() - began_s
    finally:
        gc.enable()
    spent.s /= max(slow, slowness())


def cpu_s(work: Callable[[], object], runs: int = RUNS) -> float:
    """The least of a few runs, in seconds of an idle core."""
    times = []
    for _ in range(runs):
        with measured() as spent:
            work()
        times.append(spent.s)
    return min(times)


def slowness() -> float:
    """How many times longer this core takes at the moment than an idle one; 1 at least."""
    times = []
    for _ in range(3):
        began_s = time.thread_time()
        known_loop()
        times.append(time.thread_time() - began_s)
    return max(1.0, min(times) / LOOP_S)


def known_loop() -> dict[str, tuple[int, str]]:
    """Objects, strings and a dictionary, as the code that is measured makes them."""
    return {f"r{number}": (number, f"n{number}") for number in range(30_000)}
