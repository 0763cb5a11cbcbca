"""benchmarks.measured: every row that is measured has latencies and the CPU time of each process, on every system."""

from __future__ import annotations

import os
from typing import Any

import pytest

from benchmarks import measured
from benchmarks.closed_loop import Lap
from benchmarks.measured import keyed, measure_gateway, measure_handles, measure_raw, metered
from benchmarks.processes import Roles
from benchmarks.raw_process import RawServer
from benchmarks.rows import ROWS

OWN: Roles = {role: (os.getpid(),) for role in ("front", "caller", "replica")}
STREAM_KEYS = ("", "_p50", "_p99", "_cpu")
RAW_FIGURES = {"rate": 500.0, "p50": 80.0, "p99": 200.0}


class System:
    """Answers as the caller deployment does."""

    gateway_port = http_port = 1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, *args))
        return 100.0 if method == "warm_up" else Lap(calls=1_000, rate=500.0, p50_us=80.0, p99_us=200.0)


@pytest.fixture
def raw_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What raw clients are asked for; they answer with figures of the processes that are named."""
    calls: list[tuple[Any, ...]] = []

    def raw_client(python: str, kind: str, address: str, *options: Any, seconds: float) -> dict[str, float]:
        calls.append((kind, *options))
        roles = [str(each).split("=")[1] for each in options if str(each).startswith("--process")]
        return {**RAW_FIGURES, **{f"cpu_{role}": 10.0 for role in roles}, "cpu": 10.0 * len(roles)}

    monkeypatch.setattr(measured, "raw_client", raw_client)
    monkeypatch.setattr(measured, "measure_load", lambda *args: iter(()))
    return calls


def keys_of(row: str, *roles: str) -> set[str]:
    return {f"{row}{suffix}" for suffix in (*STREAM_KEYS, *(f"_cpu_{role}" for role in roles))}


def test_handle_rows_have_the_cost_of_both_replicas() -> None:
    system = System()
    measured_keys = {key for key, _ in measure_handles(system, OWN, 2.0)}
    for row in ("handle_unary_1", "handle_stream", "array_10mb"):
        assert keys_of(row, "caller", "replica") <= measured_keys
    assert measured_keys <= ROWS.keys()
    assert [call for call in system.calls if call[0] == "stream"] == [("stream", 0.5), ("stream", 2.0)]


def test_a_stream_through_the_gateway_has_the_cost_of_gateway_and_replica(raw_calls: list[tuple[Any, ...]]) -> None:
    figures = dict(measure_gateway(System(), OWN, "python", 2.0))
    assert figures.keys() == keys_of("gateway_stream", "front", "replica")
    assert figures.keys() <= ROWS.keys()
    assert figures["gateway_stream_p99"] == 200
    assert raw_calls[0][0] == "stream"


def test_raw_has_the_same_rows_with_its_client_and_server(raw_calls: list[tuple[Any, ...]]) -> None:
    figures = dict(measure_raw("python", RawServer("127.0.0.1:1", 42), 2.0))
    for row in ("handle_unary_64", "handle_stream", "array_10mb"):
        assert keys_of(row, "caller", "replica") <= figures.keys()
    assert keys_of("gateway_stream", "front") <= figures.keys()
    assert figures.keys() <= ROWS.keys()
    assert raw_calls[-1] == ("stream", "--process=front=42")


def test_several_processes_may_have_one_role() -> None:
    assert list(metered({"front": (1, 2), "replica": (3,)})) == ["--process=front=1,2", "--process=replica=3"]


def test_the_rate_of_a_raw_client_is_the_row_itself() -> None:
    assert dict(keyed("array_10mb", RAW_FIGURES)) == {
        "array_10mb": 500,
        "array_10mb_p50": 80,
        "array_10mb_p99": 200,
    }
