"""The demo: deploys the weather example, lets two clients call it, scrapes the metrics, reports, and leaves nothing.

Run with `python -m examples.demo`. Ray is started if none runs. Exit code 0: every line of the report says ok.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import ray

import mesh
from examples.weather.app import app
from examples.weather.handle_client import call_through_handles
from examples.weather.report import Report, Stopwatch, poll

GRPC_ADDRESS = "127.0.0.1:9000"
METRICS_URL = "http://127.0.0.1:8000/-/metrics"
CLIENT_TIMEOUT_S = 120
EXIT_TIMEOUT_S = 30
MARK = "MESH_DEMO_RUN"
"""Set to a value of this run before Ray starts; every process that comes from it inherits it and is found by it."""
SHOWN_METRICS = re.compile(
    r"mesh_(gateway_grpc_requests|replica_requests|replica_cancelled|multiplexed_models_(un)?load|num_multiplexed)"
)
IN_FLIGHT_METRICS = (
    "mesh_gateway_grpc_ongoing_requests",
    "mesh_replica_ongoing_requests",
    "mesh_handle_ongoing_requests",
)


def main() -> int:
    os.environ[MARK] = str(uuid.uuid4())
    report = Report()
    try:
        with report.step("deploy"):
            deploy(report)
            report.title("A gRPC client, in a process of its own, with nothing but grpcio and the generated stubs")
            call_from_process(report)
            report.title("A Python client with deployment handles")
            call_through_handles(report)
            report.title(f"Metrics, from one scrape of {METRICS_URL}")
            show_metrics(report)
    finally:
        report.title("Shutdown")
        with report.step("shutdown"):
            shut_down(report)
    print(f"\n{'All checks held.' if not report.failures else f'{report.failures} checks FAILED.'}")
    return 1 if report.failures else 0


def deploy(report: Report) -> None:
    report.title("Deploy examples.weather: ingress, 2 forecaster replicas with at most 2 of 5 models each, logbook")
    watch = Stopwatch()
    mesh.run(app, name="weather")
    status = mesh.status().applications["weather"].status
    report.check("mesh.run", status == "RUNNING", f"application is {status}", watch.elapsed_s)


def call_from_process(report: Report) -> None:
    command = [sys.executable, "-m", "examples.weather.client", GRPC_ADDRESS]
    root = Path(__file__).parents[1]
    exit_code = subprocess.run(command, cwd=root, timeout=CLIENT_TIMEOUT_S, check=False).returncode
    report.check("the client process", exit_code == 0, f"ended with exit code {exit_code}")


def show_metrics(report: Report) -> None:
    watch = Stopwatch()
    samples = scrape()
    report.check("scrape", len(samples) > 0, f"{len(samples)} series", watch.elapsed_s)
    loads, unloads, resident = (
        total(samples, name)
        for name in (
            "mesh_multiplexed_models_load_total",
            "mesh_multiplexed_models_unload_total",
            "mesh_num_multiplexed_models",
        )
    )
    report.check("evictions", unloads > 0, f"{loads:.0f} models were fitted, {unloads:.0f} evicted")
    report.check("models in memory", 0 < resident <= 4, f"{resident:.0f}, at most 2 on each of 2 replicas")
    idle = poll(lambda: 0.0 if not in_flight(scrape()) else None)
    report.check("requests in flight", idle is not None, "none in gateway, replicas and handles")
    for line in samples:
        if SHOWN_METRICS.match(line) and not line.endswith(" 0.0"):
            print(f"      {line}")


def scrape() -> list[str]:
    """The samples, as Prometheus reads them."""
    with urllib.request.urlopen(METRICS_URL, timeout=10) as response:
        return [line for line in response.read().decode().splitlines() if not line.startswith("#")]


def in_flight(samples: list[str]) -> float:
    return sum(total(samples, name) for name in IN_FLIGHT_METRICS)


def total(samples: list[str], name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in samples if re.match(rf"{name}[{{ ]", line))


def shut_down(report: Report) -> None:
    watch = Stopwatch()
    mesh.shutdown()
    if ray.is_initialized():
        named = ray.util.list_named_actors(all_namespaces=True)
        left = [actor["name"] for actor in named if actor["namespace"] == "mesh"]
        report.check("mesh.shutdown", not left, f"actors left: {left or 'none'}", watch.elapsed_s)
    ray.shutdown()
    poll(lambda: None if list(own_processes()) else 0.0, EXIT_TIMEOUT_S)
    remaining = list(own_processes())
    report.check("processes left", not remaining, ", ".join(remaining) or "none")


def own_processes() -> Iterator[str]:
    """Command lines of other processes that carry this run's mark. Linux only; elsewhere none are seen."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            is_own = mark in (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
        except OSError:  # it has just ended, or belongs to another user
            continue
        if is_own:
            yield f"{process.name} {command}"


if __name__ == "__main__":
    sys.exit(main())
