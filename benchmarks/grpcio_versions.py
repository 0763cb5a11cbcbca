"""Raw grpc.aio with several versions of grpcio, interleaved: the base of the pin in constraints.txt.

Each version gets an environment of its own below build/. The table goes into docs/decisions.md by hand.
"""

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.raw_process import raw_client, raw_server

OLDEST = "1.75.1"
ENVIRONMENTS = Path("build/grpcio")
ROWS = tuple((kind, in_flight) for kind in ("unary", "chat", "coalesced") for in_flight in (1, 16, 64))
LABELS = {
    "unary": "unary",
    "chat": "bidi stream, one message per call",
    "coalesced": "bidi stream, coalesced",
}


def newest_version() -> str:
    """The newest grpcio that the package index offers for this Python."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "grpcio"], capture_output=True, text=True, check=True
    )
    return answer.stdout.split("(", 1)[1].split(")", 1)[0]


def environment(version: str) -> str:
    """The Python of an environment with this grpcio and uvloop, which is created if it does not exist."""
    directory = ENVIRONMENTS / version
    python = directory / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"grpcio=={version}", "uvloop"], check=True)
    return str(python)


def measure(versions: list[str], rounds: int, seconds: float) -> dict[tuple[str, str, int], float]:
    pythons = {version: environment(version) for version in versions}
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for number in range(rounds):
        for kind, in_flight in ROWS:
            # The order alternates, so that neither version always runs on the warmer machine.
            for version in versions if number % 2 == 0 else versions[::-1]:
                with raw_server(pythons[version]) as server:
                    options = "--in-flight", in_flight
                    rate = raw_client(pythons[version], kind, server.address, *options, seconds=seconds)["rate"]
                rates[version, kind, in_flight].append(rate)
                print(f"round {number + 1}/{rounds} {kind} {in_flight} grpcio {version}: {rate:,.0f}/s", flush=True)
    return {key: statistics.median(values) for key, values in rates.items()}


def table(versions: list[str], medians: dict[tuple[str, str, int], float]) -> str:
    first, last = versions[0], versions[-1]
    lines = [
        f"| row | in flight | {' | '.join(versions)} | {last} / {first} |",
        "|---|---|" + "---|" * len(versions) + "---|",
    ]
    for kind, in_flight in ROWS:
        rates = [medians[version, kind, in_flight] for version in versions]
        figures = " | ".join(f"{rate:,.0f}" for rate in rates)
        lines.append(f"| {LABELS[kind]} | {in_flight} | {figures} | {rates[-1] / rates[0]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--versions", nargs="+", help="instead of the oldest supported and the newest")
    arguments = parser.parse_args()
    versions = arguments.versions or [OLDEST, newest_version()]
    rounds, seconds = (1, 0.5) if arguments.quick else (5, 2.0)
    print(table(versions, measure(versions, rounds, seconds)))


if __name__ == "__main__":
    main()
