"""README.md's benchmark table, written from the JSON of a run below results/: the newest, or a given one."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.report import RATIOS, RESULTS, TITLES, number
from benchmarks.rows import ROWS
from benchmarks.systems import ROOT

SHOWN = (
    "handle_unary_1",
    "handle_unary_64",
    "handle_unary_64_cpu",
    "handle_stream",
    "handle_stream_cpu",
    "gateway_unary_1",
    "gateway_unary_1_p50",
    "gateway_unary_100",
    "gateway_unary_100_cpu",
    "gateway_two_hops",
    "gateway_stream",
    "gateway_stream_p50",
    "gateway_stream_cpu",
    "http_noop_1_p50",
    "http_noop_64",
    "http_noop_64_cpu",
    "http_json_m100",
    "array_10mb",
    "array_10mb_p50",
    "update_longest",
)
"""The most telling rows; a run has many more."""
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->"
README = ROOT / "README.md"


def table(run: dict[str, Any]) -> str:
    """The medians of a run as a Markdown table, with the conditions of the run."""
    medians = run["medians"]
    systems = [name for name in TITLES if medians.get(name)]
    bases = [name for name in RATIOS if name in systems]
    header = ["", *(TITLES[name] for name in systems), *(f"mesh / {TITLES[name]}" for name in bases)]
    lines = [cells(header), cells(["---", *["---:"] * (len(header) - 1)])]
    for row in SHOWN:
        figures = [medians[name].get(row) for name in systems]
        if any(figure is not None for figure in figures):
            ratios = [ratio(medians["mesh"].get(row), medians[name].get(row)) for name in bases]
            lines.append(cells([ROWS[row], *map(number, figures), *ratios]))
    return "\n".join([*lines, "", provenance(run)])


def cells(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def ratio(own: float | None, base: float | None) -> str:
    return f"{own / base:.2f}" if own is not None and base else ""


def provenance(run: dict[str, Any]) -> str:
    machine = run["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    return (
        f"Run of {run['when'].partition('T')[0]}: {run['rounds']} rounds of {run['seconds_per_row']:g} s per row, "
        f"{machine['cpus']} cores, load {machine['load_at_start']:g} before it, Python {machine['python']}, {versions}."
    )


def with_table(text: str, new: str) -> str:
    """`text` with a new part between the markers. Raises ValueError if they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"There is no {BEGIN.strip()} followed by {END}: put both back.")
    return f"{before}{begin}{new}\n{end}{after}"


def newest() -> Path:
    runs = sorted(RESULTS.glob("compare-*.json"))
    if not runs:
        raise SystemExit("There is no run below results/ yet: run `make bench` first.")
    return runs[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="a JSON file that `make bench` has written")
    path = parser.parse_args().run or newest()
    README.write_text(with_table(README.read_text(), table(json.loads(path.read_text()))))
    print(f"README.md now shows {path}")


if __name__ == "__main__":
    main()
