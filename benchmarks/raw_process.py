"""The raw server and the raw client of `raw_peer` as processes of a chosen Python."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.systems import ROOT

RAW_PEER = ("-m", "benchmarks.raw_peer")
CLIENT_GRACE_S = 60.0


class RawServer(NamedTuple):
    address: str
    pid: int


@contextlib.contextmanager
def raw_server(python: str, tls: Path | None = None) -> Iterator[RawServer]:
    """A raw server, which runs during the block. `tls` is a directory with its key and certificate."""
    command = [python, *RAW_PEER, "serve", *(["--tls", str(tls)] if tls else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the raw server did not start (exit code {process.wait()})")
        yield RawServer(address, process.pid)
    finally:
        process.kill()
        process.wait()


def raw_client(python: str, kind: str, address: str, *options: object, seconds: float) -> dict[str, float]:
    """The figures of one closed-loop client against `address`; "rate" is calls or items per second."""
    command = [python, *RAW_PEER, "client", kind, address, "--seconds", str(seconds), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=seconds * 3 + CLIENT_GRACE_S)
    if done.returncode:
        raise RuntimeError(f"the raw client failed with exit code {done.returncode}: {' '.join(command)}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}
