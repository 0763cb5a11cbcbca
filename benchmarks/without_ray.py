"""The rows that come from the data plane without Ray, and the same of plain grpc.aio.

There is no option for TLS yet. Connections and links need new processes, in which no other row has left free memory.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.data_plane import DATA_PLANE, Peer
from benchmarks.h2load import GrpcPort, Load
from benchmarks.measured import measure_load
from benchmarks.memory import connection_kib
from benchmarks.processes import resident_bytes
from benchmarks.raw_process import raw_server
from benchmarks.rows import LINKS, Figure

TLS_ROW = "gateway_tls_100"
TLS_LOAD = Load(streams=100)
KIB = 2**10


def measure_tls(seconds: float) -> Iterator[Figure]:
    with (
        tls_directory() as tls,
        peer(*DATA_PLANE, "replica") as replica,
        peer(*DATA_PLANE, "gateway", replica.line, "--tls", str(tls)) as gateway,
    ):
        roles = {"front": (gateway.pid,), "replica": (replica.pid,)}
        yield from measure_load(TLS_ROW, GrpcPort(gateway.line, roles=roles, scheme="https"), TLS_LOAD, seconds)


def measure_raw_tls(seconds: float) -> Iterator[Figure]:
    with tls_directory() as tls, raw_server(sys.executable, tls) as server:
        port = GrpcPort(server.address, roles={"front": (server.pid,)}, scheme="https")
        yield from measure_load(TLS_ROW, port, TLS_LOAD, seconds)


def measure_connections() -> Iterator[Figure]:
    with peer(*DATA_PLANE, "replica") as replica, peer(*DATA_PLANE, "gateway", replica.line) as gateway:
        yield "connection_kib", connection_kib(GrpcPort(gateway.line, roles={"front": (gateway.pid,)}))


def measure_raw_connections() -> Iterator[Figure]:
    with raw_server(sys.executable) as server:
        yield "connection_kib", connection_kib(GrpcPort(server.address, roles={"front": (server.pid,)}))


def measure_links(count: int = LINKS) -> Iterator[Figure]:
    """One process with `count` replicas, one that calls them. The first link to each process is not in the sum."""
    with ExitStack() as stack:
        replica = stack.enter_context(peer(*DATA_PLANE, "replica", "--replicas", str(count + 1)))
        caller = stack.enter_context(peer(*DATA_PLANE, "caller", replica.line.partition(",")[0]))
        caller.ask("call 1 100")
        before = resident_bytes(caller.pid), resident_bytes(replica.pid)
        caller.ask(f"connect {replica.line}")
        after = resident_bytes(caller.pid), resident_bytes(replica.pid)
    for key, start, end in zip(("link_kib_caller", "link_kib_replica"), before, after, strict=True):
        yield key, (end - start) / count / KIB


@contextmanager
def peer(*arguments: str) -> Iterator[Peer]:
    """A process of this Python, which lives during the block; its first line says where it is."""
    process = Peer(*arguments)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def tls_directory() -> Iterator[Path]:
    """A directory with a key and its certificate for this machine, which lives during the block."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        )
        files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem")]
        subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=30)
        yield directory
