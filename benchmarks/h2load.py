"""h2load as a gRPC client: it is written in C and costs far less than the server that it measures."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.closed_loop import Lap, lap_of
from benchmarks.echo_pb2 import EchoMessage
from benchmarks.processes import Roles

BODY_BYTES = 100
ECHO = "/bench.v1.Bench/Echo"
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class GrpcPort:
    """Where a system takes gRPC calls, and the processes that work on them."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)
    roles: Roles = field(default_factory=dict)
    scheme: str = "http"


@dataclass(frozen=True)
class Load:
    """`connections` with `streams` unary calls always in flight on each, and messages of `body_bytes`."""

    streams: int = 1
    connections: int = 1
    body_bytes: int = BODY_BYTES

    @property
    def in_flight(self) -> int:
        return self.streams * self.connections


def warm_up(port: GrpcPort, load: Load, seconds: float) -> float:
    """Call for a while. Returns the rate, which tells how many calls to measure; 0 if there was no answer yet."""
    return answered(_run(port, load, ["-D", f"{round(seconds * 1000)}ms"]), load.body_bytes) / seconds


def run_h2load(port: GrpcPort, load: Load, calls: int) -> Lap:
    """Exactly `calls` calls."""
    with tempfile.NamedTemporaryFile() as log:
        report = _run(port, load, ["-n", str(calls), f"--log-file={log.name}"])
        require_answers(report, calls, load.body_bytes)
        return lap_of(latencies_us(Path(log.name).read_text()), rate(report))


def make_calls(port: GrpcPort, load: Load, calls: int) -> None:
    """The same without latencies, for very many calls."""
    require_answers(_run(port, load, ["-n", str(calls)]), calls, load.body_bytes)


@contextmanager
def open_streams(port: GrpcPort, load: Load, method: str) -> Iterator[None]:
    """Calls of `method` that get no answer, all of them open until the block ends."""
    with _command(port, load, ["-n", str(load.in_flight)], method) as command:
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
    """Succeeded requests. h2load counts an error status as a success, but it has no message in its body."""
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


def _run(port: GrpcPort, load: Load, options: list[str]) -> str:
    with _command(port, load, options, ECHO) as command:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


@contextmanager
def _command(port: GrpcPort, load: Load, options: list[str], method: str) -> Iterator[list[str]]:
    """The command line. The body of its requests is a file that lives during the block."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(length_prefixed(EchoMessage(body=bytes(load.body_bytes)).SerializeToString()))
        body.flush()
        command = ["h2load", f"-c{load.connections}", f"-m{load.streams}", "-d", body.name, *options]
        for name, value in {"te": "trailers", "content-type": "application/grpc", **port.headers}.items():
            command += ["-H", f"{name}: {value}"]
        yield [*command, f"{port.scheme}://{port.address}{method}"]
