"""`make bench`: all systems in one run, interleaved round by round, one table at the end.

Only one Ray cluster runs at a time: each round starts, measures and stops one system after the other.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from benchmarks.h2load import require_h2load
from benchmarks.host import FIGURE_MARK
from benchmarks.leftovers import end_marked, new_marker
from benchmarks.measured import measure_raw
from benchmarks.measured_web import WebAddress, measure_application
from benchmarks.raw_process import raw_server
from benchmarks.report import RESULTS, print_report, write_json
from benchmarks.rows import Figure
from benchmarks.systems import ROOT, SYSTEMS, System, build_serve_environment
from benchmarks.without_ray import (
    measure_connections,
    measure_links,
    measure_raw_connections,
    measure_raw_tls,
    measure_tls,
    peer,
)


@dataclass(frozen=True)
class Effort:
    """How many rounds a run has, and how long each row of a round takes."""

    rounds: int
    seconds: float
    is_quick: bool


FULL = Effort(rounds=3, seconds=2.0, is_quick=False)
QUICK = Effort(rounds=1, seconds=0.7, is_quick=True)


class SystemFailed(Exception):
    """A system failed in one of its rows; the text names its log."""


def measure(system: System, effort: Effort, *, with_memory: bool) -> Iterator[Figure]:
    if system.is_web_server:
        with peer("-m", "benchmarks.web_app") as server:
            yield from measure_application(WebAddress(server.line, "", {"front": (server.pid,)}), effort.seconds)
        return
    if not system.has_cluster:
        with raw_server(sys.executable) as server:
            yield from measure_raw(sys.executable, server, effort.seconds)
        yield from measure_raw_tls(effort.seconds)
        yield from measure_raw_connections()
        return
    marker = new_marker()
    try:
        yield from figures_of_host(system, host_command(system, effort, with_memory), system.environment(marker))
    finally:
        end_marked(marker)
    if system.has_rows_without_ray:
        yield from measure_tls(effort.seconds)
        yield from measure_connections()
        yield from measure_links()


def host_command(system: System, effort: Effort, with_memory: bool) -> list[str]:
    options = ["--seconds", str(effort.seconds)]
    options += ["--memory"] if with_memory else []
    options += ["--operations"] if system.has_operation_rows and not effort.is_quick else []
    options += ["--quick"] if effort.is_quick else []
    return [system.python, "-m", "benchmarks.host", system.name, *options]


def figures_of_host(system: System, command: list[str], environment: dict[str, str]) -> Iterator[Figure]:
    log = RESULTS / f"{system.name}.log"
    with log.open("w") as errors:
        host = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        assert host.stdout is not None
        for line in host.stdout:
            if line.startswith(FIGURE_MARK):
                row, value = json.loads(line.removeprefix(FIGURE_MARK))
                yield row, value
    if host.wait():
        raise SystemFailed(f"{system.title} failed, see {log}: {log.read_text().strip().splitlines()[-1:]}")


def run(systems: list[System], effort: Effort) -> tuple[dict[str, dict[str, list[float]]], bool]:
    """Every figure of every round, and whether all systems succeeded."""
    figures: dict[str, dict[str, list[float]]] = {system.name: defaultdict(list) for system in systems}
    is_complete = True
    for number in range(effort.rounds):
        # Each round starts with another system, so that none always runs on the warmer machine.
        for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
            try:
                for row, value in measure(system, effort, with_memory=system.has_memory_rows):
                    figures[system.name][row].append(value)
                    print(f"round {number + 1}/{effort.rounds}  {system.title}  {row}  {value:,.1f}", flush=True)
            except SystemFailed as failure:
                is_complete = False
                print(failure, file=sys.stderr, flush=True)
    return figures, is_complete


def stop(signal_number: int, frame: FrameType | None) -> None:
    """End the run as Ctrl-C does, so that the processes of the system under test end too."""
    sys.exit(128 + signal_number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--systems", nargs="+", default=[system.name for system in SYSTEMS], metavar="NAME")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    effort = QUICK if arguments.quick else FULL
    systems = [system for system in SYSTEMS if system.name in arguments.systems]
    require_h2load()
    RESULTS.mkdir(exist_ok=True)
    if any(system.name.startswith("serve") for system in systems):
        build_serve_environment()
    load_at_start, *_ = os.getloadavg()
    figures, is_complete = run(systems, effort)
    medians = {name: {row: statistics.median(values) for row, values in rows.items()} for name, rows in figures.items()}
    print_report(medians, load_at_start)
    print(f"all figures: {write_json(figures, medians, effort.rounds, effort.seconds, load_at_start)}")
    sys.exit(0 if is_complete else 1)


if __name__ == "__main__":
    main()
