"""Many storms and gales: the nightly run. `python -m tests.sim.season 10000` goes through as many seeds of each kind.

The first fault of each kind ends its part and names the seed that shows it again.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.sim.crowd import crowd
from tests.sim.gale import HOUR, gale
from tests.sim.storm import aftermath, weather

SEEDS = 10_000
SHARES = {"storm": 1.0, "aftermath": 0.5, "gale": 0.2, "crowd": 0.2, "hour": 0.01}
"""Of the seeds: the longer a run, the fewer."""
KINDS: dict[str, tuple[Callable[[int], str], str]] = {
    "storm": (weather, "tests.sim.storm {}"),
    "aftermath": (aftermath, "tests.sim.storm {} --aftermath"),
    "gale": (gale, "tests.sim.gale {}"),
    "crowd": (crowd, "tests.sim.crowd {}"),
    "hour": (functools.partial(gale, length=HOUR), "tests.sim.gale {} --hour"),
}
_SHOWN_EVERY_S = 30.0


def pool() -> ProcessPoolExecutor:
    # Spawned, not forked: other tests have left threads in the process.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=be_quiet)


def be_quiet() -> None:
    """Half of the time would go into log lines that nothing shows."""
    logging.disable(logging.CRITICAL)


def first_fault(workers: ProcessPoolExecutor, kind: str, seeds: Sequence[int]) -> str:
    """What went wrong at the first of the seeds where something did, and how to see it again; empty: nothing did."""
    run, command = KINDS[kind]
    shown_at_s = time.monotonic()
    chunk = max(1, min(10, len(seeds) // 8))
    for seed, complaint in zip(seeds, workers.map(run, seeds, chunksize=chunk), strict=True):
        if complaint:
            return f"{complaint}\nTo see it again: .venv/bin/python -m {command.format(seed)}"
        if time.monotonic() - shown_at_s > _SHOWN_EVERY_S:
            shown_at_s = time.monotonic()
            print(f"{kind} {seed + 1} of {seeds[-1] + 1}", flush=True)
    return ""


def main() -> int:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    faults = []
    with pool() as workers:
        for kind, share in SHARES.items():
            count = max(1, int(seeds * share))
            fault = first_fault(workers, kind, range(count))
            print(fault or f"{kind}: {count} seeds, nothing went wrong", flush=True)
            faults += [fault] if fault else []
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
