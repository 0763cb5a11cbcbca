"""h2load as a client of gRPC and HTTP: it is written in C and costs far less than the server that it measures."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from benchmarks.closed_loop import Lap, lap_of
from benchmarks.echo_pb2 import EchoMessage
from benchmarks.processes import Roles

BODY_BYTES = 100
ECHO = "/bench.v1.Bench/Echo"
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Request:
    """What h2load sends again and again."""

    path: str
    headers: dict[str, str]
    answer_bytes: int
    """The least that the body of an answer has."""
    body: bytes = b""
    """Empty: a GET."""


@dataclass(frozen=True)
class Load:
    """`connections` with `streams` requests always in flight on each; `body_bytes`: of a message of gRPC."""

    streams: int = 1
    connections: int = 1
    body_bytes: int = BODY_BYTES

    @property
    def in_flight(self) -> int:
        return self.streams * self.connections


class Port(Protocol):
    """Where a system takes requests, and the processes that work on them."""

    @property
    def address(self) -> str: ...
    @property
    def roles(self) -> Roles: ...
    @property
    def scheme(self) -> str: ...
    @property
    def is_http1(self) -> bool: ...
    def request(self, load: Load) -> Request: ...


@dataclass(frozen=True)
class GrpcPort:
    """Of gRPC calls. `method` echoes its message."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)
    roles: Roles = field(default_factory=dict)
    scheme: str = "http"
    method: str = ECHO

    @property
    def is_http1(self) -> bool:
        return False

    def request(self, load: Load) -> Request:
        body = length_prefixed(EchoMessage(body=bytes(load.body_bytes)).SerializeToString())
        headers = {"te": "trailers", "content-type": "application/grpc", **self.headers}
        return Request(self.method, headers, load.body_bytes, body)


@dataclass(frozen=True)
class WebPort:
    """Of HTTP requests that are always the same."""

    address: str
    repeated: Request
    roles: Roles = field(default_factory=dict)
    scheme: str = "http"
    is_http1: bool = True
    """False: HTTP/2."""

    def request(self, load: Load) -> Request:
        return self.repeated


def warm_up(port: Port, load: Load, seconds: float) -> float:
    """Call for a while. Returns the rate, which tells how many calls to measure; 0 if there was no answer yet."""
    return answered(_run(port, load, ["-D", f"{round(seconds * 1000)}ms"]), port.request(load).answer_bytes) / seconds


def run_h2load(port: Port, load: Load, calls: int) -> Lap:
    """Exactly `calls` calls."""
    with tempfile.NamedTemporaryFile() as log:
        report = _run(port, load, ["-n", str(calls), f"--log-file={log.name}"])
        require_answers(report, calls, port.request(load).answer_bytes)
        return lap_of(latencies_us(Path(log.name).read_text()), rate(report))


def make_calls(port: Port, load: Load, calls: int) -> None:
    """The same without latencies, for very many calls."""
    require_answers(_run(port, load, ["-n", str(calls)]), calls, port.request(load).answer_bytes)


@contextmanager
def open_streams(port: GrpcPort, load: Load, method: str) -> Iterator[None]:
    """Calls of `method` that get no answer, all of them open until the block ends."""
    with _command(replace(port, method=method), load, ["-n", str(load.in_flight)]) as command:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def require_h2load() -> None:
    """Exit before a long run if h2load is missing."""
    if not shutil.which("h2load"):
        raise SystemExit("h2load is missing: install Debian's nghttp2-client")


def length_prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def answered(report: str, body_bytes: int) -> int:
    """Succeeded requests. h2load counts an error of gRPC as a success, but it has no message in its body."""
    succeeded = int(re.search(r"(\d+) succeeded", report)[1])
    data_bytes = int(re.search(r"\((\d+)\) data", report)[1])
    if data_bytes < succeeded * body_bytes:
        raise RuntimeError(f"h2load did not get the answers it expects:\n{report}")
    return succeeded


def require_answers(report: str, calls: int, body_bytes: int) -> None:
    if answered(report, body_bytes) != calls:
        raise RuntimeError(f"h2load did not get the {calls} answers it expects:\n{report}")


def rate(report: str) -> float:
    return float(re.search(r"([\d.]+) req/s", report)[1])


def latencies_us(log: str) -> list[int]:
    return [int(line.split("\t")[2]) for line in log.splitlines()]


def _run(port: Port, load: Load, options: list[str]) -> str:
    with _command(port, load, options) as command:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


@contextmanager
def _command(port: Port, load: Load, options: list[str]) -> Iterator[list[str]]:
    """The command line. The body of its requests is a file that lives during the block."""
    request = port.request(load)
    command = ["h2load", f"-c{load.connections}", f"-m{load.streams}", *options]
    command += ["--h1"] if port.is_http1 else []
    for name, value in request.headers.items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile() as body:
        if request.body:
            body.write(request.body)
            body.flush()
            command += ["-d", body.name]
        yield [*command, f"{port.scheme}://{port.address}{request.path}"]
