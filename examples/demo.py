"""The demo: deploys the examples, calls them with four clients, scrapes the metrics, reports, and removes them.

Run with `python -m examples.demo`. It starts Ray and the mesh if none runs, and ends them in that case. Exit code 0:
every check is ok.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import ray

import mesh
from examples.browser.app import app as page
from examples.browser.page_report import call_like_a_page
from examples.weather.app import app as weather
from examples.weather.handle_client import call_through_handles
from examples.weather.json_client import call_by_json
from examples.weather.metrics_report import show_metrics
from examples.weather.report import Report, Stopwatch, poll

GRPC_PORT = 9000
HTTP_PORT = 8000
APPLICATIONS = {"weather": weather, "page": page}
CLIENT_TIMEOUT_S = 120
EXIT_TIMEOUT_S = 30
INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""
MARK = "MESH_DEMO_RUN"
"""An environment variable with a value of this run. All processes of the run inherit it and are found by it."""


def main() -> int:
    os.environ[MARK] = str(uuid.uuid4())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report()
    watch = Stopwatch()
    is_interrupted = is_guest = False
    try:
        is_guest = bool(mesh.status().proxies)
        demonstrate(report)
    except KeyboardInterrupt:
        is_interrupted = True
        print("\nInterrupted.")
    finally:
        # Ctrl-C does not interrupt the shutdown, in which every wait has a limit.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        report.title("Shutdown")
        with report.step("shutdown"):
            if is_guest:
                report.note("the mesh was running before: only the examples are deleted")
                for name in APPLICATIONS:
                    mesh.delete(name)
            else:
                shut_down(report)
    if is_interrupted:
        return INTERRUPTED
    print(f"\n{report.verdict()} ({watch.elapsed_s:.0f} s)")
    return 1 if report.failures else 0


def demonstrate(report: Report) -> None:
    report.title("The weather example: a gRPC ingress, 2 forecasters that hold at most 2 of 5 models each, a logbook")
    with report.step("deploy"):
        deploy(report)
        gateway = mesh.status().gateways[0]
        report.title("A gRPC client, in a process of its own, with nothing but grpcio and the generated stubs")
        call_from_process(report, gateway.grpc_address)
        report.title("A Python client with deployment handles")
        call_through_handles(report)
        report.title(f"A client that speaks JSON to http://{gateway.http_address}, by the rules in weather.proto")
        call_by_json(report, f"http://{gateway.http_address}")
        report.title(f"A browser: the page that http://{gateway.http_address}/page serves, and what it calls")
        call_like_a_page(report, f"http://{gateway.http_address}")
        url = f"http://{gateway.http_address}/-/metrics"
        report.title(f"Metrics, scraped from {url}")
        show_metrics(report, url)


def usual_or_any(usual: int) -> int:
    """A port of the gateway: the usual one, or 0 for any other where that is taken."""
    try:
        socket.create_server(("0.0.0.0", usual)).close()
    except OSError:
        return 0
    return usual


def deploy(report: Report) -> None:
    report.note("starting Ray and the mesh ...")
    watch = Stopwatch()
    if not mesh.status().gateways:
        mesh.start(grpc_options={"port": usual_or_any(GRPC_PORT)}, http_options={"port": usual_or_any(HTTP_PORT)})
    addresses = ", ".join(f"{each.grpc_address} and {each.http_address}" for each in mesh.status().gateways)
    report.check("mesh.start", True, f"the controller is up, and a gateway at {addresses}", watch.elapsed_s)
    report.note("starting five replicas ...")
    watch = Stopwatch()
    mesh.run_many([mesh.RunTarget(app, name, f"/{name}") for name, app in APPLICATIONS.items()])
    states = {mesh.status().applications[name].status for name in APPLICATIONS}
    report.check("mesh.run_many", states == {"RUNNING"}, f"the applications are {', '.join(states)}", watch.elapsed_s)


def call_from_process(report: Report, address: str) -> None:
    command = [sys.executable, "-m", "examples.weather.client", address]
    root = Path(__file__).parents[1]
    process = subprocess.run(command, cwd=root, timeout=CLIENT_TIMEOUT_S, check=False)
    report.check("the client process", process.returncode == 0, f"ended with exit code {process.returncode}")


def shut_down(report: Report) -> None:
    report.note("ending everything ...")
    watch = Stopwatch()
    mesh.shutdown()
    if ray.is_initialized():
        named = ray.util.list_named_actors(all_namespaces=True)
        left = [actor["name"] for actor in named if actor["namespace"] == "mesh"]
        report.check("mesh.shutdown", not left, f"actors left: {', '.join(left) or 'none'}", watch.elapsed_s)
    ray.shutdown()
    poll(lambda: None if list(own_processes()) else 0.0, EXIT_TIMEOUT_S)
    remaining = list(own_processes())
    report.check("processes", not remaining, f"left: {', '.join(remaining) or 'none'}", watch.elapsed_s)


def own_processes() -> Iterator[str]:
    """Command lines of other processes that carry this run's mark. Works on Linux only; elsewhere there are none."""
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
