"""`make bench-tuning`: the settings whose defaults were measured, each with the rows that it changes.

Every value runs on a new mesh, interleaved round by round; the table shows medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from benchmarks.closed_loop import Lap
from benchmarks.host import FIGURE_MARK, LOGICAL_CPUS, free_port_pair
from benchmarks.measured import WARM_UP_S
from benchmarks.mesh_system import MeshSystem
from benchmarks.rows import Figure
from benchmarks.systems import ROOT

MIB = 2**20


@dataclass(frozen=True)
class Question:
    """One setting, the values to try, and the group of rows that shows their effect."""

    variable: str
    values: tuple[str, ...]
    rows: str


QUESTIONS = (
    Question("MESH_STREAM_CREDITS", ("32", "64", "128", "256"), "stream"),
    Question("MESH_OBJECT_STORE_MIN_BYTES", ("0", "1"), "arrays"),
    Question("MESH_GIL_SWITCH_INTERVAL_S", ("0.005", "0.001", "0.0005", "0.0002", "0.0001"), "handles"),
)


def measure(rows: str, system: MeshSystem, seconds: float) -> Iterator[Figure]:
    match rows:
        case "stream":
            yield "stream, items/s", lap(system, "stream", seconds).rate
        case "arrays":
            for size in (MIB // 4, MIB // 2, MIB, 4 * MIB, 10 * MIB, 100 * MIB):
                yield f"{size / MIB:g} MiB both ways, calls/s", lap(system, "array", seconds, size).rate
        case "handles":
            for in_flight in (1, 16, 64):
                yield f"unary, {in_flight} in flight, calls/s", system.call("warm_up", in_flight, seconds)


def lap(system: MeshSystem, method: str, seconds: float, *args: Any) -> Lap:
    """Of rounds, after some to warm up."""
    system.call(method, WARM_UP_S, *args)
    measured: Lap = system.call(method, seconds, *args)
    return measured


def host(rows: str, seconds: float) -> None:
    """Deploy the mesh in this process's environment and print the figures of one group of rows."""
    ray.init("local", num_cpus=LOGICAL_CPUS, include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        system = MeshSystem(free_port_pair(), is_isolated=True)
        try:
            for figure in measure(rows, system, seconds):
                print(FIGURE_MARK + json.dumps(figure), flush=True)
        finally:
            system.close()
    finally:
        ray.shutdown()


def figures_of(question: Question, value: str, seconds: float) -> Iterator[Figure]:
    fixed = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tuning", "--host", question.rows, "--seconds", str(seconds)],
        cwd=ROOT,
        env={**os.environ, **fixed, question.variable: value},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    for line in done.stdout.splitlines():
        if line.startswith(FIGURE_MARK):
            row, figure = json.loads(line.removeprefix(FIGURE_MARK))
            yield row, figure


def compare(question: Question, rounds: int, seconds: float) -> None:
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        for value in question.values:
            for row, figure in figures_of(question, value, seconds):
                figures[row][value].append(figure)
            print(f"round {number + 1}/{rounds}  {question.variable}={value}", file=sys.stderr, flush=True)
    print(f"\n| {question.variable} | {' | '.join(question.values)} |")
    print(f"|---|{'---|' * len(question.values)}")
    for row, by_value in figures.items():
        cells = [f"{statistics.median(by_value[value]):,.0f}" for value in question.values]
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", metavar="VARIABLE", help="one setting, e.g. MESH_STREAM_CREDITS")
    parser.add_argument("--host", metavar="ROWS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.host:
        host(arguments.host, arguments.seconds)
        return
    for question in QUESTIONS:
        if arguments.only in (None, question.variable):
            compare(question, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
