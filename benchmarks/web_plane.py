"""`python -m benchmarks.web_plane`: HTTP through the data plane without Ray, with the CPU time per request.

The processes are those of `benchmarks.data_plane`: a gateway before a plain replica, one before a Starlette
application, and uvicorn with the same application.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from benchmarks.data_plane import DATA_PLANE, Peer
from benchmarks.h2load import BODY_BYTES, ECHO, GrpcPort, Load, Port, Request, WebPort, require_h2load, run_h2load
from benchmarks.measured_web import ALONE, ECHO_MB, MANY, MULTIPLEXED, NOOP, STREAM, WebAddress, json_port
from benchmarks.processes import CpuMeter, Roles

WARM_UP_PART = 5


@dataclass(frozen=True)
class Row:
    title: str
    port: Port
    load: Load
    requests: int


def rows(plain: Roles, starlette: Roles, uvicorn: Roles, addresses: dict[str, str]) -> Iterator[Row]:
    web = {
        "plain": WebAddress(addresses["plain"], "", plain),
        "Starlette": WebAddress(addresses["starlette"], "", starlette),
        "uvicorn": WebAddress(addresses["uvicorn"], "", uvicorn),
    }
    for name, address in web.items():
        yield Row(f"no-op {name}, 1 connection", address.port(*NOOP), ALONE, 3_000)
        yield Row(f"no-op {name}, 64 connections", address.port(*NOOP), MANY, 12_000)
    for name in ("Starlette", "uvicorn"):
        yield Row(f"1 MB {name}", web[name].port(*ECHO_MB), ALONE, 150)
        yield Row(f"stream {name}, 16 connections", web[name].port(*STREAM), Load(connections=16), 800)
    json = json_port(addresses["plain"], plain)
    yield Row("JSON, 64 connections", json, MANY, 12_000)
    yield Row("JSON of HTTP/2, m=100", replace(json, is_http1=False), MULTIPLEXED, 12_000)
    message = GrpcPort(addresses["plain"]).request(MULTIPLEXED).body[5:]
    connect = Request(ECHO, {"content-type": "application/proto", "connect-protocol-version": "1"}, BODY_BYTES, message)
    yield Row("Connect, 64 connections", WebPort(addresses["plain"], connect, plain), MANY, 12_000)
    yield Row("gRPC, m=100", GrpcPort(addresses["plain"], roles=plain), MULTIPLEXED, 20_000)


def measure(row: Row, rounds: int) -> str:
    run_h2load(row.port, row.load, max(row.requests // WARM_UP_PART, row.load.in_flight))
    laps, costs = [], []
    for _ in range(rounds):
        meter = CpuMeter(row.port.roles)
        laps.append(run_h2load(row.port, row.load, row.requests))
        costs.append(meter.us_per_call(row.requests))
    rate, p50, p99 = (statistics.median(getattr(lap, name) for lap in laps) for name in ("rate", "p50_us", "p99_us"))
    medians = {role: statistics.median(cost[role] for cost in costs) for role in row.port.roles}
    cost = " + ".join(f"{role} {value:.1f}" for role, value in medians.items())
    return f"{row.title:30} {rate:9,.0f}/s  p50 {p50:7,.0f}  p99 {p99:7,.0f} us   CPU us per request: {cost}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose title contains this")
    arguments = parser.parse_args()
    require_h2load()
    with ExitStack() as stack:

        def begin(*command: str) -> Peer:
            peer = Peer(*command)
            stack.callback(peer.close)
            return peer

        peers: dict[str, tuple[Peer, Peer]] = {}
        for kind in ("plain", "starlette"):
            replica = begin(*DATA_PLANE, "replica", "--web", kind)
            peers[kind] = begin(*DATA_PLANE, "gateway", replica.line), replica
        uvicorn = begin("-m", "benchmarks.web_app")
        roles = {kind: {"front": (gate.pid,), "replica": (replica.pid,)} for kind, (gate, replica) in peers.items()}
        print(f"processes: {roles}, uvicorn {uvicorn.pid}", flush=True)
        addresses = {kind: gateway.line for kind, (gateway, _) in peers.items()} | {"uvicorn": uvicorn.line}
        for row in rows(roles["plain"], roles["starlette"], {"front": (uvicorn.pid,)}, addresses):
            if arguments.only in row.title:
                print(measure(row, arguments.rounds), flush=True)
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
