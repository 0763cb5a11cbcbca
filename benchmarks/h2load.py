"""h2load as a gRPC client: it is written in C and costs far less than the server that it measures."""

import re
import shutil
import statistics
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.echo_pb2 import EchoMessage

BODY_BYTES = 100
WARM_UP_SHARE = 0.3
GRACE_S = 60.0


@dataclass(frozen=True)
class Load:
    """The result of one connection."""

    rate: float
    """Succeeded requests per second."""
    latency_median_us: float


def run_h2load(address: str, headers: dict[str, str], streams: int, seconds: float) -> Load:
    """Unary Echo calls over one connection with `streams` of them always in flight."""
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory, "body"), Path(directory, "log")
        body.write_bytes(length_prefixed(EchoMessage(body=bytes(BODY_BYTES)).SerializeToString()))
        command = ["h2load", "-c1", f"-m{streams}", "-D", milliseconds(seconds), f"--log-file={log}", "-d", str(body)]
        command += ["--warm-up-time", milliseconds(seconds * WARM_UP_SHARE)]
        for name, value in {"te": "trailers", "content-type": "application/grpc", **headers}.items():
            command += ["-H", f"{name}: {value}"]
        command.append(f"http://{address}/bench.v1.Bench/Echo")
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 2 + GRACE_S, check=True)
        return Load(answered(done.stdout) / seconds, latency_median_us(log))


def require_h2load() -> None:
    """Exit before a long run if h2load is missing."""
    if not shutil.which("h2load"):
        raise SystemExit("h2load is missing: install Debian's nghttp2-client")


def length_prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def answered(report: str) -> int:
    """Succeeded requests. h2load counts an error status as a success, but it has no message in its body."""
    succeeded = int(re.search(r"(\d+) succeeded", report)[1])
    data_bytes = int(re.search(r"\((\d+)\) data", report)[1])
    if not succeeded or data_bytes < succeeded * BODY_BYTES:
        raise RuntimeError(f"h2load did not get the answers it expects:\n{report}")
    return succeeded


def latency_median_us(log: Path) -> float:
    return statistics.median(int(line.split("\t")[2]) for line in log.read_text().splitlines())
