"""`python -m benchmarks.data_plane`: the data plane as processes without Ray, with the CPU time per call of each.

A replica, a gateway and a caller run the product's own router, links and listener. CPU time is that of a whole process
over an exact number of calls, so it holds on a machine with other work too, where rates do not; `--first` (root only)
runs the processes before all others, for rates. To see where time goes, run `py-spy record --native --pid PID` on one
of the processes, whose ids are printed.
"""

import argparse
import asyncio
import gc
import os
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.h2load import BODY_BYTES, GrpcPort, Load, require_h2load, run_h2load
from benchmarks.processes import cpu_us
from benchmarks.raw_process import RAW_PEER, raw_client
from benchmarks.scenario import Echo
from benchmarks.web_app import APP
from gateway.gateway_listener import GatewayListener
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import read_routes
from gateway.typed_entry import TypedEntry
from gateway.web_entry import WebEntry
from mesh.handle import DeploymentHandle
from mesh.link.admission import Admission
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import LINK_LIMITS, LINK_UPKEEP
from mesh.memory.allocator import keep_freed_memory
from mesh.replica.executor import Executor
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, ReplicaInfo, Snapshot
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.settings import settings
from mesh.usercode.served_descriptors import descriptors_of
from mesh.usercode.served_methods import typed_methods
from mesh.v1 import control_pb2
from mesh.web.asgi_service import AsgiService
from mesh.web.asgi_types import WebService
from mesh.web.ingress import IngressApp
from mesh.web.plain_service import PlainService
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import local_socket

KEY = DeploymentKey("echo", "Echo")
ONGOING_MAX = 1_000
TOKEN = b"token"
REPLICA_NODE = "" if os.environ.get("TCP") else "node"
"""Callers are on "node": links use Unix sockets, or TCP if the environment has TCP=1."""
CONNECTED_WITHIN_S = 30.0
DATA_PLANE = ("-m", "benchmarks.data_plane")
GATEWAY_CALLS = {1: 2_000, 16: 8_000, 100: 12_000}
HANDLE_CALLS = {1: 2_000, 16: 8_000, 64: 16_000}
WARM_UP_SHARE = 0.2


# ---- The processes ---------------------------------------------------------------------------------------------------


def run_replica(count: int, web: str, *, is_isolated: bool) -> None:
    """Serve Echo as `count` replicas of one process; prints their addresses. `web`: what serves HTTP requests."""
    behave_as_in_a_mesh()
    io = io_thread()

    async def start() -> list[str]:
        admission, links = Admission(ONGOING_MAX), set()
        user_loop = UserLoop(is_isolated=is_isolated, threads_max=8)
        counts = ReplicaCounts(KEY.app, KEY.name, admission, links)
        service = asyncio.run_coroutine_threadsafe(web_service(web, user_loop), user_loop.loop)
        table = MethodTable(Echo(), typed_methods(Echo))
        executor = Executor(table, user_loop, counts, await asyncio.wrap_future(service))
        return [await listen(LinkServicer(replica_id(number), admission, executor, links)) for number in range(count)]

    print(",".join(io.run(start(), 10)), flush=True)
    sys.stdin.read()


def behave_as_in_a_mesh() -> None:
    """Memory, garbage collection and threads of replicas and gateways."""
    keep_freed_memory()
    gc.freeze()
    sys.setswitchinterval(settings().process.gil_switch_interval_s)
    gc.set_threshold(settings().process.gc_threshold, 20, 50)


async def web_service(kind: str, user_loop: UserLoop) -> WebService:
    if kind == "plain":
        return PlainService(Echo().__call__, lambda: user_loop.threads, is_async=True)
    return await AsgiService.start(IngressApp(build=lambda: APP), object(), 8)


async def listen(servicer: LinkServicer) -> str:
    server = RpcServer(read_request_head, servicer.accept, limits=LINK_LIMITS, policy=LINK_UPKEEP)
    address = f"127.0.0.1:{await server.listen('127.0.0.1', 0)}"
    await server.listen_unix(local_socket(address, TOKEN))
    return address


def replica_id(number: int) -> str:
    return f"replica-{number}"


def router_to(addresses: str) -> Router:
    async def make() -> Router:
        router = Router(KEY, CallerIdentity("data-plane", "node", "", TOKEN))
        router.update(snapshot_of(addresses, 1))
        return router

    return io_thread().run(make(), 10)


def snapshot_of(addresses: str, version: int) -> Snapshot:
    numbered = enumerate(addresses.split(","))
    replicas = tuple(ReplicaInfo(replica_id(number), address, REPLICA_NODE) for number, address in numbered)
    return Snapshot(KEY, version, replicas, ONGOING_MAX, -1)


def run_gateway(address: str, tls: Path | None) -> None:
    """A listener before one replica; prints its address. With TLS that of a second port, as no option has TLS yet."""
    behave_as_in_a_mesh()
    router = router_to(address)

    async def start() -> int:
        listener = GatewayListener(lambda *_: router, GrpcMetrics(), Health().handler())
        typed, web = TypedEntry(listener.methods), WebEntry(lambda *_: router, control_pb2.GatewayOptions())
        listener.add_dialects(*typed.dialects, *web.dialects)
        routes = read_routes(route_table())
        listener.set_routes(routes)
        typed.set_routes(routes)
        web.set_routes(routes, routes.applications)
        port = await listener.start("127.0.0.1", 0)
        if tls is None:
            return port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
        context.set_alpn_protocols(["h2"])
        return await listener.start("127.0.0.1", 0, tls=lambda: context)

    print(f"127.0.0.1:{io_thread().run(start(), 10)}", flush=True)
    sys.stdin.read()


def route_table() -> control_pb2.RouteTable:
    """The echo, by gRPC, by JSON and by HTTP."""
    methods = [
        control_pb2.GrpcMethod(full_name="/bench.v1.Bench/Echo"),
        control_pb2.GrpcMethod(full_name="/bench.v1.Bench/Stream", streams_response=True),
    ]
    descriptors = descriptors_of(typed_methods(Echo).values(), "echo")
    table = control_pb2.RouteTable(version=1)
    table.routes.add(
        app="echo", route_prefix="/", ingress="Echo", grpc_methods=methods, serves_web=True, descriptors_digest="1"
    )
    table.descriptor_sets.add(digest="1", serialised=descriptors)
    return table


def run_caller(address: str) -> None:
    """Obeys standard input: "call", calls in flight and calls in all; or "connect" and addresses. Prints seconds."""
    behave_as_in_a_mesh()
    handle: DeploymentHandle[Any] = DeploymentHandle(KEY.name, KEY.app)
    router = handle._family.router = router_to(address)
    echo = handle.echo

    async def call_in_turn(count: int) -> None:
        body = bytes(BODY_BYTES)
        for _ in range(count):
            await echo.remote(body)

    async def measure(in_flight: int, calls: int) -> float:
        start_s = time.perf_counter()
        await asyncio.gather(*(call_in_turn(calls // in_flight) for _ in range(in_flight)))
        return time.perf_counter() - start_s

    async def update(addresses: str) -> None:
        router.update(snapshot_of(addresses, 2))

    def connect(addresses: str) -> float:
        """Have a link to each of these replicas."""
        start_s = time.perf_counter()
        io_thread().run(update(addresses), CONNECTED_WITHIN_S)
        while router.link_count <= addresses.count(","):
            if time.perf_counter() - start_s > CONNECTED_WITHIN_S:
                raise TimeoutError(f"only {router.link_count} links are up")
            time.sleep(0.01)
        return time.perf_counter() - start_s

    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["connect", addresses]:
                print(connect(addresses), flush=True)
            case ["call", in_flight, calls]:
                print(asyncio.run(measure(int(in_flight), int(calls))), flush=True)


# ---- The measurement -------------------------------------------------------------------------------------------------


class Peer:
    """One of the processes."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.line = self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

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
        return cpu_us(self.pid)


def load(address: str, streams: int, calls: int) -> float:
    """Make exactly `calls` unary calls through a gateway; returns the rate."""
    return run_h2load(GrpcPort(address), Load(streams), calls).rate


def row(name: str, rates: list[float], costs: dict[str, list[float]], raws: list[float]) -> str:
    ratio = statistics.median(rate / raw for rate, raw in zip(rates, raws, strict=True))
    cost = " + ".join(f"{peer} {statistics.median(values):.1f}" for peer, values in costs.items())
    return f"{name:24} {statistics.median(rates):9,.0f}/s {ratio:6.2f} x raw   CPU us per call: {cost}"


def run_first(pids: list[int]) -> None:
    """Let all threads of these processes run whenever they can, before what else the machine has to do."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))


def compare(rounds: int, *, is_isolated: bool, is_first: bool) -> None:
    require_h2load()
    peers: list[Peer] = []

    def begin(*arguments: str) -> Peer:
        peers.append(Peer(*arguments))
        return peers[-1]

    try:
        raw = begin(*RAW_PEER, "serve")
        replica = begin(*DATA_PLANE, "replica", *([] if is_isolated else ["--inline"]))
        gateway = begin(*DATA_PLANE, "gateway", replica.line)
        caller = begin(*DATA_PLANE, "caller", replica.line)
        print(f"replica {replica.pid}, gateway {gateway.pid}, caller {caller.pid}", flush=True)
        if is_first:
            # The clients are children of this process, and like it.
            run_first([os.getpid(), *(peer.pid for peer in peers)])
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
            caller.ask(f"call {in_flight} {int(calls * WARM_UP_SHARE)}")
            rates, raws, costs = [], [], {"caller": [], "replica": []}
            for _ in range(rounds):
                before = caller.cpu_us, replica.cpu_us
                rates.append(calls / float(caller.ask(f"call {in_flight} {calls}")))
                after = caller.cpu_us, replica.cpu_us
                raw_figures = raw_client(sys.executable, "unary", raw.line, "--in-flight", in_flight, seconds=0.5)
                raws.append(raw_figures["rate"])
                for key, start, end in zip(costs, before, after, strict=True):
                    costs[key].append((end - start) / calls)
            print(row(f"handle unary, {in_flight} in flight", rates, costs, raws), flush=True)
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    finally:
        for peer in peers:
            peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", nargs="?", default="compare", choices=["compare", "replica", "gateway", "caller"])
    parser.add_argument("address", nargs="?", help="of the replica")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=1, help="in the process of a replica")
    parser.add_argument("--web", default="plain", choices=["plain", "starlette"], help="what a replica serves by HTTP")
    parser.add_argument("--tls", type=Path, help="a directory with key.pem and certificate.pem, for the gateway")
    parser.add_argument("--first", action="store_true", help="run before all other work of the machine; root only")
    parser.add_argument("--inline", action="store_true", help="user code on the I/O loop")
    arguments = parser.parse_args()
    with patch("mesh.wire.mesh_token._token", TOKEN):
        match arguments.role:
            case "compare":
                compare(arguments.rounds, is_isolated=not arguments.inline, is_first=arguments.first)
            case "replica":
                run_replica(arguments.replicas, arguments.web, is_isolated=not arguments.inline)
            case "gateway":
                run_gateway(arguments.address, arguments.tls)
            case "caller":
                run_caller(arguments.address)


if __name__ == "__main__":
    main()
