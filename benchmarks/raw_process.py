"""The raw server and the raw client of `raw_peer` as processes of a chosen Python."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

SCRIPT = str(Path(__file__).with_name("raw_peer.py"))
CLIENT_GRACE_S = 60.0


@contextlib.contextmanager
def raw_server(python: str) -> Iterator[str]:
    """The address of a raw server, which runs during the block."""
    process = subprocess.Popen([python, SCRIPT, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the raw server did not start (exit code {process.wait()})")
        yield address
    finally:
        process.kill()
        process.wait()


def raw_client(python: str, kind: str, address: str, *options: object, seconds: float) -> float:
    """Calls or items per second of one closed-loop client against `address`."""
    command = [python, SCRIPT, "client", kind, address, "--seconds", str(seconds), *map(str, options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds * 3 + CLIENT_GRACE_S)
    if done.returncode:
        raise RuntimeError(f"the raw client failed with exit code {done.returncode}: {' '.join(command)}")
    return float(json.loads(done.stdout)["rate"])
