"""`python -m benchmarks.data_plane`: the data plane as processes without Ray, with the CPU time per call of each.

A replica, a gateway and a caller run the product's own router, links and listener. CPU time is that of all threads of a
process over an exact number of calls, so it holds on a machine with other work too, where rates do not. To see where it
goes, run `py-spy record --native --pid PID` on one of the processes, whose ids are printed.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.echo_pb2 import EchoMessage
from benchmarks.h2load import BODY_BYTES, length_prefixed, require_h2load
from benchmarks.raw_process import SCRIPT, raw_client
from benchmarks.scenario import Echo
from gateway.grpc_listener import GrpcListener
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import read_routes
from mesh.handle import DeploymentHandle
from mesh.link.admission import Admission
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import LINK_LIMITS, LINK_UPKEEP
from mesh.replica.executor import Executor
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, ReplicaInfo, Snapshot
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.usercode.served_methods import typed_methods
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import local_socket

KEY = DeploymentKey("echo", "Echo")
ONGOING_MAX = 1_000
TOKEN = b"token"
GATEWAY_CALLS = {1: 2_000, 16: 8_000, 100: 12_000}
HANDLE_CALLS = {1: 2_000, 16: 8_000, 64: 16_000}
WARM_UP_SHARE = 0.2


# ---- The processes ---------------------------------------------------------------------------------------------------


def run_replica(*, is_isolated: bool) -> None:
    """Serve Echo; prints the replica's address."""
    io = io_thread()

    async def start() -> str:
        admission, links = Admission(ONGOING_MAX), set()
        user_loop = UserLoop(is_isolated=is_isolated, threads_max=8)
        counts = ReplicaCounts(KEY.app, KEY.name, admission, links)
        executor = Executor(MethodTable(Echo(), typed_methods(Echo)), user_loop, counts)
        servicer = LinkServicer("replica", admission, executor, links)
        server = RpcServer(read_request_head, servicer.accept, limits=LINK_LIMITS, policy=LINK_UPKEEP)
        address = f"127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        await server.listen_unix(local_socket(address, TOKEN))
        return address

    print(io.run(start(), 10), flush=True)
    sys.stdin.read()


def router_to(address: str) -> Router:
    async def make() -> Router:
        router = Router(KEY, CallerIdentity("data-plane", "node", "", TOKEN))
        router.update(
            Snapshot(
                KEY, 1, (ReplicaInfo("replica", address, "" if os.environ.get("TCP") else "node"),), ONGOING_MAX, -1
            )
        )
        return router

    return io_thread().run(make(), 10)


def run_gateway(address: str) -> None:
    """A listener before one replica; prints its address."""
    router = router_to(address)

    async def start() -> int:
        listener = GrpcListener(lambda *_: router, GrpcMetrics(), Health().handler())
        method = control_pb2.GrpcMethod(full_name="/bench.v1.Bench/Echo")
        route = control_pb2.Route(app="echo", route_prefix="/", ingress="Echo", grpc_methods=[method])
        listener.set_routes(read_routes(control_pb2.RouteTable(version=1, routes=[route])))
        return await listener.start("127.0.0.1", 0)

    print(f"127.0.0.1:{io_thread().run(start(), 10)}", flush=True)
    sys.stdin.read()


def run_caller(address: str) -> None:
    """Calls a handle by each line of standard input: calls in flight, and calls in all; prints seconds."""
    handle: DeploymentHandle[Any] = DeploymentHandle(KEY.name, KEY.app)
    handle._family.router = router_to(address)
    echo = handle.echo

    async def call_in_turn(count: int) -> None:
        body = bytes(BODY_BYTES)
        for _ in range(count):
            await echo.remote(body)

    async def measure(in_flight: int, calls: int) -> float:
        start_s = time.perf_counter()
        await asyncio.gather(*(call_in_turn(calls // in_flight) for _ in range(in_flight)))
        return time.perf_counter() - start_s

    print("ready", flush=True)
    for line in sys.stdin:
        in_flight, calls = map(int, line.split())
        print(asyncio.run(measure(in_flight, calls)), flush=True)


# ---- The measurement -------------------------------------------------------------------------------------------------


class Peer:
    """One of the processes."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.line = self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self.process.args} ended")
        return line

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    @property
    def cpu_us(self) -> float:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def load(address: str, streams: int, calls: int) -> float:
    """Make exactly `calls` unary calls through a gateway; returns the rate."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(length_prefixed(EchoMessage(body=bytes(BODY_BYTES)).SerializeToString()))
        body.flush()
        headers = ["te: trailers", "content-type: application/grpc"]
        command = ["h2load", "-c1", f"-m{streams}", "-n", str(calls), "-d", body.name]
        command += [part for header in headers for part in ("-H", header)]
        done = subprocess.run(
            [*command, f"http://{address}/bench.v1.Bench/Echo"], capture_output=True, text=True, timeout=120, check=True
        )
    if f"{calls} succeeded" not in done.stdout:
        raise RuntimeError(done.stdout)
    return float(re.search(r"([\d.]+) req/s", done.stdout)[1])


def row(name: str, rates: list[float], costs: dict[str, list[float]], raws: list[float]) -> str:
    ratio = statistics.median(rate / raw for rate, raw in zip(rates, raws, strict=True))
    cost = " + ".join(f"{peer} {statistics.median(values):.1f}" for peer, values in costs.items())
    return f"{name:24} {statistics.median(rates):9,.0f}/s {ratio:6.2f} x raw   CPU us per call: {cost}"


def compare(rounds: int, *, is_isolated: bool) -> None:
    require_h2load()
    peers: list[Peer] = []

    def begin(*arguments: str) -> Peer:
        peers.append(Peer(*arguments))
        return peers[-1]

    module = "-m", "benchmarks.data_plane"
    try:
        raw = begin(SCRIPT, "serve")
        replica = begin(*module, "replica", *([] if is_isolated else ["--inline"]))
        gateway = begin(*module, "gateway", replica.line)
        caller = begin(*module, "caller", replica.line)
        print(f"replica {replica.process.pid}, gateway {gateway.process.pid}, caller {caller.process.pid}", flush=True)
        for streams, calls in GATEWAY_CALLS.items():
            load(gateway.line, streams, int(calls * WARM_UP_SHARE))
            load(raw.line, streams, int(calls * WARM_UP_SHARE))
            rates, raws, costs = [], [], {"gateway": [], "replica": [], "raw": []}
            for _ in range(rounds):
                before = gateway.cpu_us, replica.cpu_us, raw.cpu_us
                rates.append(load(gateway.line, streams, calls))
                raws.append(load(raw.line, streams, calls))
                after = gateway.cpu_us, replica.cpu_us, raw.cpu_us
                for key, start, end in zip(costs, before, after, strict=True):
                    costs[key].append((end - start) / calls)
            print(row(f"gateway unary, m={streams}", rates, costs, raws), flush=True)
        for in_flight, calls in HANDLE_CALLS.items():
            caller.ask(f"{in_flight} {int(calls * WARM_UP_SHARE)}")
            rates, raws, costs = [], [], {"caller": [], "replica": []}
            for _ in range(rounds):
                before = caller.cpu_us, replica.cpu_us
                rates.append(calls / float(caller.ask(f"{in_flight} {calls}")))
                after = caller.cpu_us, replica.cpu_us
                raws.append(raw_client(sys.executable, "unary", raw.line, "--in-flight", in_flight, seconds=0.5))
                for key, start, end in zip(costs, before, after, strict=True):
                    costs[key].append((end - start) / calls)
            print(row(f"handle unary, {in_flight} in flight", rates, costs, raws), flush=True)
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    finally:
        for peer in peers:
            peer.process.kill()
            peer.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", nargs="?", default="compare", choices=["compare", "replica", "gateway", "caller"])
    parser.add_argument("address", nargs="?", help="of the replica")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inline", action="store_true", help="user code on the I/O loop")
    arguments = parser.parse_args()
    with patch("mesh.wire.mesh_token.mesh_token", lambda: TOKEN):
        match arguments.role:
            case "compare":
                compare(arguments.rounds, is_isolated=not arguments.inline)
            case "replica":
                run_replica(is_isolated=not arguments.inline)
            case "gateway":
                run_gateway(arguments.address)
            case "caller":
                run_caller(arguments.address)


if __name__ == "__main__":
    main()
