"""The processes that a run left behind, Ray Serve's HAProxy included: finds and ends them.

Every process of a run inherits an environment variable with a value of that run and is found by it.
"""

import os
import signal
import time
from pathlib import Path

MARKER_NAME = "BENCHMARK_RUN"
ENDED_WITHIN_S = 10.0
POLL_S = 0.05


def new_marker() -> dict[str, str]:
    return {MARKER_NAME: f"{os.getpid()}-{time.time_ns()}"}


def marked_processes(marker: dict[str, str]) -> list[int]:
    wanted = f"{MARKER_NAME}={marker[MARKER_NAME]}".encode()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and is_marked(entry, wanted)]


def is_marked(entry: Path, wanted: bytes) -> bool:
    try:
        return wanted in (entry / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or belongs to another user
        return False


def end_marked(marker: dict[str, str]) -> None:
    """Kill every process of the run and wait until none is left."""
    deadline = time.monotonic() + ENDED_WITHIN_S
    while pids := marked_processes(marker):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} of the benchmark do not end")
        for pid in pids:
            kill(pid)
        time.sleep(POLL_S)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended
        return
