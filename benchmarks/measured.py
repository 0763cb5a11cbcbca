"""What is measured of a running system: handle rows and gateway rows, and the same of plain grpc.aio."""

from collections.abc import Iterator
from typing import Any, Protocol

from benchmarks.closed_loop import Lap
from benchmarks.echo_pb2 import StreamRequest
from benchmarks.h2load import GrpcPort, Load, Port, run_h2load, warm_up
from benchmarks.processes import CpuMeter, Roles, listening
from benchmarks.raw_peer import STREAM_ITEMS
from benchmarks.raw_process import RawServer, raw_client
from benchmarks.rows import AT_GATEWAY, AT_HANDLE, AT_TWO_HOPS, GATEWAY_STREAMS, HANDLE_IN_FLIGHT, Figure, figures
from benchmarks.scenario import ARRAY_BYTES, PAYLOAD

WARM_UP_S = 0.5
CONNECTIONS = Load(streams=100, connections=64)
TWO_HOPS = Load(streams=100)
MIB = Load(body_bytes=2**20)
THREE_MB = Load(body_bytes=3_000_000)


class Deployed(Protocol):
    """One system with the scenario deployed."""

    gateway_port: int
    http_port: int

    def call(self, method: str, *args: Any) -> Any:
        """The result of one method of the caller deployment."""


def roles_of(system: Deployed) -> Roles:
    return {
        "front": listening(system.gateway_port),
        "caller": (system.call("pid"),),
        "replica": (system.call("ask_echo", "pid"),),
    }


def port_of(system: Deployed, application: str, roles: Roles, names: tuple[str, ...] = AT_GATEWAY) -> GrpcPort:
    """The gateway's port for one application."""
    address = f"127.0.0.1:{system.gateway_port}"
    return GrpcPort(address, {"application": application}, {name: roles[name] for name in names})


def measure_handles(system: Deployed, roles: Roles, seconds: float) -> Iterator[Figure]:
    for count in HANDLE_IN_FLIGHT:
        rate = system.call("warm_up", count, WARM_UP_S)
        meter = CpuMeter({name: roles[name] for name in AT_HANDLE})
        lap: Lap = system.call("unary", count, calls_for(rate, seconds, count))
        yield from figures(f"handle_unary_{count}", lap, meter.us_per_call(lap.calls))
    yield "handle_stream", system.call("stream", seconds)
    yield "array_10mb", system.call("array", seconds)


def measure_gateway(system: Deployed, roles: Roles, python: str, seconds: float) -> Iterator[Figure]:
    echo = port_of(system, "echo", roles)
    yield from measure_port(echo, seconds)
    yield from measure_load("gateway_two_hops", port_of(system, "caller", roles, AT_TWO_HOPS), TWO_HOPS, seconds)
    request = StreamRequest(items=STREAM_ITEMS, body=PAYLOAD).SerializeToString().hex()
    options = ["--request-hex", request, "--metadata", "application=echo"]
    yield "gateway_stream", raw_client(python, "stream", echo.address, *options, seconds=seconds)["rate"]


def measure_port(port: GrpcPort, seconds: float) -> Iterator[Figure]:
    for count in GATEWAY_STREAMS:
        yield from measure_load(f"gateway_unary_{count}", port, Load(count), seconds)
    yield from measure_load("gateway_connections_64", port, CONNECTIONS, seconds)
    yield from measure_load("gateway_1mib", port, MIB, seconds)
    yield from measure_load("gateway_3mb", port, THREE_MB, seconds)


def measure_load(key: str, port: Port, load: Load, seconds: float) -> Iterator[Figure]:
    calls = calls_for(warm_up(port, load, WARM_UP_S), seconds, load.in_flight)
    meter = CpuMeter(port.roles)
    lap = run_h2load(port, load, calls)
    yield from figures(key, lap, meter.us_per_call(calls))


def calls_for(rate: float, seconds: float, in_flight: int) -> int:
    """How many calls to measure: those of about `seconds`, and enough that as many as asked for are in flight."""
    return max(round(rate * seconds), in_flight)


def measure_raw(python: str, server: RawServer, seconds: float) -> Iterator[Figure]:
    """The rows that plain grpc.aio has: unary calls and streams, called directly, without any hop."""
    for count in HANDLE_IN_FLIGHT:
        options = "--in-flight", count, "--server-pid", server.pid
        for name, value in raw_client(python, "unary", server.address, *options, seconds=seconds).items():
            yield f"handle_unary_{count}" if name == "rate" else f"handle_unary_{count}_{name}", value
    stream = raw_client(python, "stream", server.address, seconds=seconds)["rate"]
    yield "handle_stream", stream
    yield "array_10mb", raw_client(python, "unary", server.address, "--bytes", ARRAY_BYTES, seconds=seconds)["rate"]
    for key, value in measure_port(GrpcPort(server.address, roles={"front": (server.pid,)}), seconds):
        yield key, value
        if key.startswith("gateway_unary_100"):
            yield key.replace("gateway_unary_100", "gateway_two_hops"), value
    yield "gateway_stream", stream
