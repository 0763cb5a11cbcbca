"""The memory rows: what connections and open streams cost, and that many calls leave nothing behind."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.h2load import GrpcPort, Load, make_calls, open_streams
from benchmarks.measured import Deployed, port_of
from benchmarks.processes import Roles, by_role, resident_bytes
from benchmarks.raw_process import raw_client
from benchmarks.rows import CONNECTIONS_IDLE, STREAMS_IDLE, Figure

MIB, KIB = 2**20, 2**10
WARM_UP_PART = 20
IN_FLIGHT = 64
CANCELS_IN_FLIGHT = 1_000
IDLE_LOAD = Load(streams=100, connections=STREAMS_IDLE // 100)
OPEN_WITHIN_S = 60.0
POLL_S = 0.1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = 4
ACK_FLAG = 1


@dataclass(frozen=True)
class Amounts:
    """How many calls and cancelled calls the growth of memory is measured over."""

    calls: int
    cancels: int
    gateway_calls: int
    gateway_cancels: int


FULL = Amounts(calls=200_000, cancels=20_000, gateway_calls=1_000_000, gateway_cancels=100_000)
QUICK = Amounts(calls=40_000, cancels=4_000, gateway_calls=100_000, gateway_cancels=10_000)


def measure_memory(
    system: Deployed, roles: Roles, python: str, bare_bytes: Callable[[], int], amounts: Amounts
) -> Iterator[Figure]:
    """What takes most memory comes last: what it leaves free would hide growth."""
    port = port_of(system, "echo", roles)
    yield "rss_gateway", by_role(resident_bytes, roles)["front"] / MIB
    yield from measure_handle_growth(system, roles["replica"][0], bare_bytes, amounts)
    yield from measure_gateway_growth(port, python, amounts)
    yield from measure_idle_streams(system, port)


def measure_handle_growth(
    system: Deployed, replica: int, bare_bytes: Callable[[], int], amounts: Amounts
) -> Iterator[Figure]:
    """Replica memory after warm-up, compared with a bare actor, then the growth by calls and cancelled calls."""
    system.call("unary", IN_FLIGHT, amounts.calls // WARM_UP_PART)
    system.call("many_cancelled", amounts.cancels // WARM_UP_PART, IN_FLIGHT)
    start = resident_bytes(replica)
    yield "rss_over_bare", (start - bare_bytes()) / MIB
    system.call("unary", IN_FLIGHT, amounts.calls)
    after_calls = resident_bytes(replica)
    yield "rss_after_calls", (after_calls - start) / MIB
    system.call("many_cancelled", amounts.cancels, IN_FLIGHT)
    yield "rss_after_cancels", (resident_bytes(replica) - after_calls) / MIB


def measure_gateway_growth(port: GrpcPort, python: str, amounts: Amounts) -> Iterator[Figure]:
    def resident() -> float:
        return sum(by_role(resident_bytes, port.roles).values())

    def cancel(calls: int) -> None:
        options = ["--in-flight", CANCELS_IN_FLIGHT, "--calls", calls]
        options += ["--metadata", f"application={port.headers['application']}"]
        raw_client(python, "cancelled", port.address, *options, seconds=OPEN_WITHIN_S)

    make_calls(port, Load(streams=100), amounts.gateway_calls // WARM_UP_PART)
    cancel(amounts.gateway_cancels // WARM_UP_PART)
    start = resident()
    make_calls(port, Load(streams=100), amounts.gateway_calls)
    after_calls = resident()
    yield "rss_after_gateway_calls", (after_calls - start) / MIB
    cancel(amounts.gateway_cancels)
    yield "rss_after_gateway_cancels", (resident() - after_calls) / MIB


def measure_idle_streams(system: Deployed, port: GrpcPort) -> Iterator[Figure]:
    before = by_role(resident_bytes, port.roles)
    with open_streams(port, IDLE_LOAD, "/bench.v1.Bench/Watch"):
        await_watching(system, STREAMS_IDLE)
        during = by_role(resident_bytes, port.roles)
    yield "rss_gateway_streams", during["front"] / MIB
    yield "stream_kib", (during["front"] - before["front"]) / STREAMS_IDLE / KIB
    yield "stream_kib_replica", (during["replica"] - before["replica"]) / STREAMS_IDLE / KIB
    await_watching(system, 0)


def await_watching(system: Deployed, count: int) -> None:
    """Wait until the echo has this many open calls of Watch."""
    deadline = time.monotonic() + OPEN_WITHIN_S
    while (watching := system.call("ask_echo", "watching")) != count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{watching} calls are open instead of {count}")
        time.sleep(POLL_S)


def connection_kib(port: GrpcPort, count: int = CONNECTIONS_IDLE) -> float:
    """Memory of the process behind `port` for each HTTP/2 connection without calls. The process has to be new."""
    before = by_role(resident_bytes, port.roles)["front"]
    with idle_connections(port.address, count):
        return (by_role(resident_bytes, port.roles)["front"] - before) / count / KIB


@contextmanager
def idle_connections(address: str, count: int) -> Iterator[None]:
    """`count` HTTP/2 connections on which both sides have sent their settings."""
    host, port = address.split(":")
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(count)]
        for connection in connections:
            connection.sendall(PREFACE + settings_frame())
        for connection in connections:
            if connection.recv(9)[3] != SETTINGS_FRAME:
                raise RuntimeError(f"{address} does not speak HTTP/2")
            connection.sendall(settings_frame(ACK_FLAG))
        yield


def settings_frame(flags: int = 0) -> bytes:
    """A SETTINGS frame without any."""
    return struct.pack(">HBBBI", 0, 0, SETTINGS_FRAME, flags, 0)
