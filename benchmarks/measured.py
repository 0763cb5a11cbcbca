"""What is measured of a running system: handle rows and gateway rows, and the same of plain grpc.aio."""

from collections.abc import Iterator
from typing import Any, Protocol

from benchmarks.closed_loop import Lap
from benchmarks.echo_pb2 import StreamRequest
from benchmarks.h2load import GrpcPort, Load, Port, run_h2load, warm_up
from benchmarks.processes import CpuMeter, Roles, listening
from benchmarks.raw_peer import OWN_PID, STREAM_ITEMS
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
    yield from measure_rounds("handle_stream", system, "stream", roles, seconds)
    yield from measure_rounds("array_10mb", system, "array", roles, seconds)


def measure_rounds(key: str, system: Deployed, method: str, roles: Roles, seconds: float) -> Iterator[Figure]:
    """Of a method of the caller that does one round after the other for a time."""
    system.call(method, WARM_UP_S)
    meter = CpuMeter({name: roles[name] for name in AT_HANDLE})
    lap: Lap = system.call(method, seconds)
    yield from figures(key, lap, meter.us_per_call(lap.calls))


def measure_gateway(system: Deployed, roles: Roles, python: str, seconds: float) -> Iterator[Figure]:
    echo = port_of(system, "echo", roles)
    yield from measure_port(echo, seconds)
    yield from measure_load("gateway_two_hops", port_of(system, "caller", roles, AT_TWO_HOPS), TWO_HOPS, seconds)
    request = StreamRequest(items=STREAM_ITEMS, body=PAYLOAD).SerializeToString().hex()
    options = ["--request-hex", request, "--metadata", "application=echo", *metered(echo.roles)]
    yield from keyed("gateway_stream", raw_client(python, "stream", echo.address, *options, seconds=seconds))


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

    def measure(kind: str, *options: object, processes: Roles) -> dict[str, float]:
        return raw_client(python, kind, server.address, *options, *metered(processes), seconds=seconds)

    both: Roles = {"caller": (OWN_PID,), "replica": (server.pid,)}
    for count in HANDLE_IN_FLIGHT:
        yield from keyed(f"handle_unary_{count}", measure("unary", "--in-flight", count, processes=both))
    yield from keyed("handle_stream", measure("stream", processes=both))
    yield from keyed("array_10mb", measure("unary", "--bytes", ARRAY_BYTES, processes=both))
    for key, value in measure_port(GrpcPort(server.address, roles={"front": (server.pid,)}), seconds):
        yield key, value
        if key.startswith("gateway_unary_100"):
            yield key.replace("gateway_unary_100", "gateway_two_hops"), value
    yield from keyed("gateway_stream", measure("stream", processes={"front": (server.pid,)}))


def metered(processes: Roles) -> Iterator[str]:
    """The options of a raw client that has to measure the CPU time of these processes."""
    for role, pids in processes.items():
        yield f"--process={role}={','.join(map(str, pids))}"


def keyed(key: str, measured: dict[str, float]) -> Iterator[Figure]:
    """The figures of a row from those of a raw client."""
    for name, value in measured.items():
        yield key if name == "rate" else f"{key}_{name}", value
