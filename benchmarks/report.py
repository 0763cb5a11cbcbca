"""The report of a run: two printed tables and a JSON file."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks.rows import ROWS
from benchmarks.systems import ROOT, SYSTEMS
from benchmarks.targets import Medians, Verdict, judge

RESULTS = ROOT / "results"
PACKAGES = ("grpcio", "protobuf", "ray", "starlette", "uvicorn", "uvloop")
TITLES = {system.name: system.title for system in SYSTEMS}
RATIOS = ("serve", "serve-tuned", "raw", "uvicorn")
LOAD_OF_IDLE_MACHINE_MAX = 0.5


def print_report(medians: Medians, load_at_start: float) -> None:
    header = ["", *TITLES.values(), *(f"mesh / {TITLES[base]}" for base in RATIOS)]
    rows = [row for row in ROWS if any(row in medians.get(name, {}) for name in TITLES)]
    print("\n" + aligned([header, *(row_cells(row, medians) for row in rows)]))
    header = ["target for", "of", "at", "floor", "goal", "measured", ""]
    print("\n" + aligned([header, *(verdict_cells(verdict) for verdict in judge(medians))]))
    print(f"\n{load_text(load_at_start)}")


def row_cells(row: str, medians: Medians) -> list[str]:
    own = medians.get("mesh", {}).get(row)
    bases = [medians.get(name, {}).get(row) for name in RATIOS]
    ratios = [f"{own / base:.2f}" if own and base else "" for base in bases]
    return [ROWS[row], *(number(medians.get(name, {}).get(row)) for name in TITLES), *ratios]


def verdict_cells(verdict: Verdict) -> list[str]:
    target = verdict.target
    against = " ".join(filter(None, ("×", TITLES[target.base], target.base_row))) if target.base else ""
    floor = f"{'at most' if target.is_upper_limit else 'at least'} {target.floor:.3g}"
    goal = "" if target.goal is None else f"{target.goal:.3g}"
    return [ROWS[target.row], TITLES[target.system], against, floor, goal, number(verdict.figure), verdict.word]


def load_text(load_at_start: float) -> str:
    """The load that other processes made before the run began, and what it means."""
    if load_at_start <= LOAD_OF_IDLE_MACHINE_MAX:
        return f"The machine was idle before the run (load {load_at_start:.1f})."
    return (
        f"The machine had other work (load {load_at_start:.1f} before the run): "
        "compare CPU per call, and rates only within this run."
    )


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Text with the first column aligned to the left and figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(aligned_line(line, widths) for line in lines)


def aligned_line(line: Sequence[str], widths: Sequence[int]) -> str:
    figures = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *figures]).rstrip()


def write_json(
    figures: dict[str, dict[str, list[float]]], medians: Medians, rounds: int, seconds: float, load_at_start: float
) -> Path:
    """Write the run with all its rounds to a new file below results/. Returns its path."""
    RESULTS.mkdir(exist_ok=True)
    when = time.strftime("%Y-%m-%dT%H-%M-%S")
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    run = {
        "when": when,
        "machine": {**machine, "load_at_start": round(load_at_start, 1)},
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "rounds": rounds,
        "seconds_per_row": seconds,
        "figures": figures,
        "medians": medians,
        "targets": [
            {**asdict(verdict.target), "figure": verdict.figure, "verdict": verdict.word} for verdict in judge(medians)
        ],
    }
    path = RESULTS / f"compare-{when}.json"
    path.write_text(json.dumps(run, indent=2) + "\n")
    return path
