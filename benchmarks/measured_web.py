"""What is measured of HTTP: the same Starlette application on every system, and what only some of them have."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.request import urlopen

from benchmarks.closed_loop import Lap
from benchmarks.h2load import BODY_BYTES, ECHO, Load, Request, WebPort
from benchmarks.measured import WARM_UP_S, Deployed, calls_for, measure_load
from benchmarks.processes import CpuMeter, Roles, listening
from benchmarks.rows import Figure, figures
from benchmarks.web_app import CHUNK, CHUNKS
from benchmarks.websocket_load import run_websockets

ALONE = Load()
MANY = Load(connections=64)
SOME = Load(connections=16)
MULTIPLEXED = Load(streams=100)
SOCKETS = 64
MB = 1_000_000
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class WebAddress:
    """Where the Starlette application is, and the processes that work on its requests."""

    address: str
    prefix: str
    roles: Roles

    def port(self, path: str, answer_bytes: int, body: bytes = b"") -> WebPort:
        return WebPort(self.address, Request(self.prefix + path, {}, answer_bytes, body), self.roles)


NOOP = "/noop", len("ok")
ECHO_MB = "/echo", MB, bytes(MB)
STREAM = "/stream", CHUNKS * len(CHUNK)
JSON_BODY = json.dumps({"body": base64.b64encode(bytes(BODY_BYTES)).decode()}).encode()


def measure_deployed_web(system: Deployed, roles: Roles, seconds: float) -> Iterator[Figure]:
    """`roles`: those of the echo, which has a plain `__call__` too."""
    address = f"127.0.0.1:{system.http_port}"
    front = listening(system.http_port)
    yield from measure_application(WebAddress(address, "/web", {"front": front, "replica": pids(address)}), seconds)
    echo = WebAddress(address, "/echo", {"front": front, "replica": roles["replica"]})
    yield from measure_load("http_plain_64", echo.port("", NOOP[1]), MANY, seconds)


def pids(address: str) -> tuple[int, ...]:
    with urlopen(f"http://{address}/web/pid", timeout=TIMEOUT_S) as answer:
        return (int(answer.read()),)


def measure_application(web: WebAddress, seconds: float) -> Iterator[Figure]:
    yield from measure_load("http_noop_1", web.port(*NOOP), ALONE, seconds)
    yield from measure_load("http_noop_64", web.port(*NOOP), MANY, seconds)
    yield from measure_load("http_1mb", web.port(*ECHO_MB), ALONE, seconds)
    yield from measure_load("http_stream_16", web.port(*STREAM), SOME, seconds)
    yield from measure_websockets(web, seconds)


def measure_websockets(web: WebAddress, seconds: float) -> Iterator[Figure]:
    def run(messages: int) -> Lap:
        return run_websockets(web.address, f"{web.prefix}/messages", SOCKETS, messages)

    calls = calls_for(run(SOCKETS * 20).rate * WARM_UP_S, 1, SOCKETS)
    calls = calls_for(run(calls).rate, seconds, SOCKETS)
    meter = CpuMeter(web.roles)
    lap = run(calls)
    yield from figures("http_websocket_64", lap, meter.us_per_call(lap.calls))


def json_port(address: str, roles: Roles) -> WebPort:
    """The echo of gRPC, called with JSON over HTTP/1.1."""
    headers = {"content-type": "application/json", "application": "echo"}
    return WebPort(address, Request(ECHO, headers, BODY_BYTES, JSON_BODY), roles)


def measure_json(port: WebPort, seconds: float) -> Iterator[Figure]:
    yield from measure_load("http_json_64", port, MANY, seconds)
    yield from measure_load("http_json_m100", replace(port, is_http1=False), MULTIPLEXED, seconds)
