"""An upgrade of the mesh under load: this version is installed where an earlier commit runs, and takes over."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e import leftovers, upgraded_mesh
from tests.e2e.load import Load
from tests.e2e.waiting import until
from tests.free_ports import free_ports
from tests.unit.protos import shop_pb2, shop_pb2_grpc

ROOT = Path(__file__).parents[2]
EARLIER = "41741fe36d9e38f5173e953eaa33cb5916ffedf3"
"""The commit of tests/released/2026-11-29."""


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short: Ray puts Unix sockets into it.
    directory = Path(tempfile.mkdtemp(prefix="mesh-up-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def installed(directory: Path) -> Path:
    """Where all processes find the code: first that of the earlier commit."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", EARLIER, "mesh", "gateway", "tests"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if archive.returncode:
        pytest.skip(f"the history of the project is not here: {archive.stderr.decode().strip()}")
    (directory / "earlier").mkdir()
    subprocess.run(["tar", "-x", "-C", str(directory / "earlier")], input=archive.stdout, timeout=60, check=True)
    installed = directory / "installed"
    installed.symlink_to(directory / "earlier")
    return installed


def install(installed: Path, code: Path) -> None:
    """In one step, as package managers replace a version."""
    following = installed.with_name("following")
    following.symlink_to(code)
    following.replace(installed)


@contextmanager
def program(installed: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program with the installed code; it ends with the block, and so does all that it has started."""
    file = installed.parent / "upgraded_mesh.py"
    shutil.copy(upgraded_mesh.__file__, file)
    mark = str(uuid.uuid4())
    environment = {**os.environ, "PYTHONPATH": str(installed), leftovers.MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    started = subprocess.Popen(
        [sys.executable, str(file), *arguments],
        cwd=installed.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
        started.communicate(timeout=60)
        until(lambda: not leftovers.processes_of_this_run(mark), timeout_s=30)
    finally:
        started.kill()
        started.wait(timeout=10)


_OF_RAY = re.compile(r"(\x1b\[[\d;]*m)*\(")


def said(program: subprocess.Popen[str]) -> Any:
    """The next line of its output that is its own: Ray shows lines of actors there too."""
    assert program.stdout is not None
    line = next((line for line in program.stdout if not _OF_RAY.match(line)), "")
    assert line, f"it ended with {program.wait(timeout=10)}"
    return json.loads(line)


@pytest.mark.timeout(180)
def test_a_new_version_takes_over_a_mesh_that_serves_and_no_request_fails(installed: Path) -> None:
    """The controller first; then an application, whose replicas work with the old gateway and old replicas.

    The old gateway serves on when it is asked for what only gateways of this version do: to hand over its ports.
    """
    (port,) = free_ports(1)
    with program(installed, "serve", str(port), str(installed.parent / "ray")) as serving:
        started = said(serving)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = shop_pb2_grpc.ShopStub(channel)

            def call() -> str:
                metadata = (("application", "shop"),)
                return str(stub.Price(shop_pb2.Item(name="x"), timeout=20, metadata=metadata).name)

            with Load(call, call) as load:
                load.until_answered(20)
                assert set(load.answers) == {"one False False"}
                install(installed, ROOT)
                os.kill(started["controller"], signal.SIGKILL)
                with program(installed, "update", started["address"]) as updating:
                    assert said(updating) == ["shop", "stock"]
                    (problem,) = said(updating)
                    assert "its process is of an earlier version, which has no offer_ports" in problem
                until(lambda: load.answers[-1] == "two True False", timeout_s=30)
                load.until_answered(20)
            assert load.errors == []
            assert set(load.answers) == {"one False False", "two True False"}
