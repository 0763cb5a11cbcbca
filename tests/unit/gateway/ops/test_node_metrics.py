"""A scrape over real gRPC: other processes of the node, slow ones and dead ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from gateway.ops import node_metrics as metrics_module
from gateway.ops.metric_sums import Families
from gateway.ops.node_metrics import NodeMetrics
from mesh.v1 import control_pb2, telemetry_pb2, telemetry_pb2_grpc
from mesh.wire.endpoints import generic_handlers, start_server
from mesh.wire.telemetry import COUNTER, Family, Sample
from tests.unit.gateway.fakes import on_io_loop, until

CALLS = Family("calls_total", COUNTER, "Calls.")
TOKEN = (("mesh-token-bin", b"secret"),)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no cluster that has a token."""
    monkeypatch.setattr(metrics_module, "token_metadata", lambda: TOKEN)


class Process:
    """The Process service of another process."""

    def __init__(self, calls: float) -> None:
        self.calls = calls
        self.label_names: tuple[str, ...] = ()
        self.is_stuck = False
        self.is_asked = False
        """A request is waiting for its answer."""
        self.was_authenticated = False
        self.scrapes = 0

    async def Metrics(self, request: Any, context: Any) -> telemetry_pb2.MetricsReply:
        self.scrapes += 1
        self.was_authenticated = TOKEN[0] in list(context.invocation_metadata())
        if self.is_stuck:
            self.is_asked = True
            try:
                await asyncio.Event().wait()
            finally:
                self.is_asked = False
        sample = telemetry_pb2.Sample(value=self.calls, label_values=self.label_names)
        family = telemetry_pb2.MetricFamily(
            name=CALLS.name, kind=CALLS.kind, help=CALLS.help, label_names=self.label_names, samples=[sample]
        )
        return telemetry_pb2.MetricsReply(families=[family])


@asynccontextmanager
async def node(*processes: Process) -> AsyncIterator[tuple[NodeMetrics, list[control_pb2.Peer], list[grpc.aio.Server]]]:
    peers: list[control_pb2.Peer] = []
    servers: list[grpc.aio.Server] = []
    for number, process in enumerate(processes):
        handlers = generic_handlers(telemetry_pb2_grpc.add_ProcessServicer_to_server, process)
        server, port = await start_server([handlers], "127.0.0.1")
        servers.append(server)
        peers.append(control_pb2.Peer(process_id=f"p{number}", address=f"127.0.0.1:{port}"))

    def own() -> Families:
        return [(CALLS, [Sample((), 1)])]

    metrics = NodeMetrics(lambda: peers, frozenset, own)
    try:
        yield metrics, peers, servers
    finally:
        await metrics.close()
        for server in servers:
            await server.stop(0)


def calls(families: Families) -> float:
    ((family, (sample,)),) = families
    assert family == CALLS
    return sample.value


def test_a_scrape_adds_up_this_process_and_all_others():
    async def scenario() -> None:
        processes = Process(10), Process(100)
        async with node(*processes) as (metrics, _, _):
            assert calls(await metrics.scrape()) == 111
            processes[0].calls = 20
            assert calls(await metrics.scrape()) == 121
        assert all(process.was_authenticated for process in processes)

    on_io_loop(scenario())


def test_a_scrape_waits_for_all_stuck_processes_at_the_same_time_and_keeps_their_counts():
    async def scenario() -> None:
        processes = [Process(10) for _ in range(4)]
        async with node(*processes) as (metrics, _, _):
            assert calls(await metrics.scrape()) == 41
            for process in processes[1:]:
                process.is_stuck = True
            processes[0].calls = 20
            scrape = asyncio.ensure_future(metrics.scrape())
            await until(lambda: all(process.is_asked for process in processes[1:]), "all to be asked")
            assert not scrape.done()
            assert calls(await scrape) == 51

    on_io_loop(scenario())


def test_a_process_that_died_keeps_its_counts():
    async def scenario() -> None:
        async with node(Process(10), Process(100)) as (metrics, peers, servers):
            assert calls(await metrics.scrape()) == 111
            await servers[0].stop(0)
            assert calls(await metrics.scrape()) == 111
            del peers[0]
            assert calls(await metrics.scrape()) == 111

    on_io_loop(scenario())


def test_a_metric_that_is_declared_in_two_ways_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what to do about it (item 252)."""

    async def scenario() -> None:
        first, second = Process(2), Process(3)
        second.label_names = ("kind",)
        async with node(first, second) as (metrics, _, _):
            for _ in range(3):
                await metrics.scrape()

    on_io_loop(scenario())
    (record,) = (each for each in caplog.records if "calls_total" in each.getMessage())
    assert record.levelname == "WARNING"
    assert "with tags kind is left out" in record.getMessage()
    assert "Give it another name" in record.getMessage()


def test_scrapes_at_the_same_time_do_not_mix():
    async def scenario() -> None:
        async with node(Process(10)) as (metrics, _, _):
            assert [calls(each) for each in await asyncio.gather(metrics.scrape(), metrics.scrape())] == [11, 11]

    on_io_loop(scenario())


def test_all_that_ask_while_a_scrape_runs_share_the_next_one():
    """A client that asks a thousand times at once costs the processes of the node two answers."""

    async def scenario() -> None:
        process = Process(10)
        async with node(process) as (metrics, _, _):
            process.is_stuck = True
            first = asyncio.create_task(metrics.scrape())
            await until(lambda: process.is_asked, "the first scrape")
            process.is_stuck, process.calls = False, 20
            others = [asyncio.create_task(metrics.scrape()) for _ in range(1_000)]
            await asyncio.sleep(0)
            others[0].cancel()
            assert {calls(each) for each in await asyncio.gather(*others[1:])} == {21}
            assert others[0].cancelled()
            await first
            assert process.scrapes == 2

    on_io_loop(scenario())
