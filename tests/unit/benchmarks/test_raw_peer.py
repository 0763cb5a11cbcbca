"""benchmarks.raw_peer: what its client reports of the processes that its options name."""

import argparse
import asyncio
import json
import os
from typing import NoReturn

import pytest

from benchmarks import raw_peer
from benchmarks.closed_loop import Lap
from benchmarks.processes import CpuMeter
from benchmarks.raw_peer import OWN_PID, figures_of, roles_of

LAP = Lap(calls=1_000, rate=500.0, p50_us=80.0, p99_us=200.0)


def test_the_own_process_stands_among_others() -> None:
    assert roles_of([f"caller={OWN_PID}", "front=12,13"]) == {"caller": (os.getpid(),), "front": (12, 13)}


def test_a_client_reports_latencies_and_the_cost_of_each_process() -> None:
    figures = figures_of(LAP, CpuMeter({"caller": (os.getpid(),), "replica": (os.getppid(),)}))
    assert list(figures) == ["rate", "p50", "p99", "cpu_caller", "cpu_replica", "cpu"]
    assert figures["cpu"] == figures["cpu_caller"] + figures["cpu_replica"]


def test_without_processes_there_is_no_cpu_time() -> None:
    assert figures_of(LAP, CpuMeter({})) == {"rate": 500, "p50": 80, "p99": 200}


def test_a_client_ends_without_waiting_for_the_threads_of_grpc(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def measure(*_: object) -> dict[str, float]:
        return {"rate": 500.0}

    def end(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setitem(raw_peer.MEASUREMENTS, "cancelled", measure)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        asyncio.run(raw_peer.client(argparse.Namespace(kind="cancelled", address="127.0.0.1:1")))
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"rate": 500}
