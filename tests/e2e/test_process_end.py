"""How programs and `mesh run` end together with a Ray of their own: drained, or with one line when Ray ends first.

Each test starts a Ray of its own beside that of the run, because it ends it.
"""

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from mesh.client.ray_guard import RAY_HAS_ENDED
from tests.documents import ROOT
from tests.e2e import leftovers, metrics
from tests.e2e.conftest import Gateway
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

pytestmark = pytest.mark.timeout(300)

ENDS_WITHIN_S = 5.0
OF_A_TRACEBACK = re.compile(r"Traceback \(|  |KeyboardInterrupt|SystemExit|The actor is dead because ")

APP = """
import asyncio, ray, sys
import mesh
from tests.unit.protos import shop_pb2, shop_pb2_grpc

@mesh.deployment(ray_actor_options={"num_cpus": 0})
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request, context):
        print("entered", flush=True)
        await asyncio.sleep(request.amount)
        return shop_pb2.Item(name="answered")

app = Shop.bind()
"""

OWN_RAY = """
import ray
ray.init(address="local", namespace="mesh", num_cpus=4, include_dashboard=False, log_to_driver=False,
         logging_level="warning", object_store_memory=100_000_000, _temp_dir="{ray}")
"""

PROGRAM = (
    OWN_RAY
    + """
import mesh
from shop_of_process_end import app
mesh.start(http_options={{"port": {http_port}}}, grpc_options={{"port": {grpc_port}}})
print(ray.get_runtime_context().gcs_address, flush=True)
mesh.run(app, blocking={blocking})
"""
)

COMMAND = (
    OWN_RAY
    + """
from mesh.cli.main import command
import sys
sys.argv = ["mesh", "run", "shop_of_process_end:app", "--grpc-port", "{grpc_port}", "--http-port", "{http_port}"]
command()
"""
)


STARTS_RAY = """
import os, sys
os.environ.update(RAY_ADDRESS="local", RAY_TMPDIR="{ray}")
from mesh.cli.main import command
sys.argv = ["mesh", "run", "shop_of_process_end:app", "--grpc-port", "{grpc_port}", "--http-port", "{http_port}"]
command()
"""
"""`mesh run` that starts Ray itself, beside that of the run."""


def ports(count: int) -> list[int]:
    """Free ports that the daemons of a Ray which is just starting do not choose: below those that the system gives."""
    free = (port for port in random.sample(range(20_000, 32_000), 100) if not leftovers.is_listening(port))
    return list(itertools.islice(free, count))


@dataclass
class Program:
    process: subprocess.Popen[str]
    mark: str
    gateway: Gateway

    def until_serving(self) -> grpc.Channel:
        # Its gateway starts in some seconds: a stock client would pause longer from attempt to attempt.
        options = ((f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max"))
        channel = grpc.insecure_channel(self.gateway.grpc_address, options=[*options])
        stub = shop_pb2_grpc.ShopStub(channel)

        def serves() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            try:
                return bool(stub.Price(shop_pb2.Item(), timeout=2).name)
            except grpc.RpcError:
                return False

        until(serves, timeout_s=200)
        return channel

    def end(self, send: int, *, to_group: bool = False) -> tuple[int, list[str]]:
        """The exit status, and the lines printed, after a signal to the process or to its whole group."""
        (os.killpg if to_group else os.kill)(self.process.pid, send)
        return self.ended()

    def ended(self, timeout_s: float = ENDS_WITHIN_S) -> tuple[int, list[str]]:
        began_at_s = time.monotonic()
        out, _ = self.process.communicate(timeout=100)
        took_s = time.monotonic() - began_at_s
        assert took_s < timeout_s, f"it took {took_s:.1f} s: {out}"
        until(lambda: not leftovers.processes_of_this_run(self.mark), timeout_s=20)
        return self.process.returncode, out.splitlines()


@pytest.fixture
def ray_files(cluster: Path) -> Iterator[Path]:
    """A directory for the files of a Ray: with a short name, because Ray puts Unix sockets into it."""
    path = Path(tempfile.mkdtemp(prefix="end", dir=cluster.parent))
    yield path
    shutil.rmtree(path)


@contextmanager
def started(directory: Path, ray_files: Path, source: str, **values: object) -> Iterator[Program]:
    """A program in a process group of its own, all of whose processes carry a mark."""
    values["ray"] = ray_files
    (directory / "shop_of_process_end.py").write_text(APP)
    gateway = Gateway(*ports(2))
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", source.format(grpc_port=gateway.grpc_port, http_port=gateway.http_port, **values)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory}:{ROOT}", leftovers.MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Program(process, mark, gateway)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def raylet(mark: str) -> int:
    """Process id of the raylet among the processes with that mark: the oldest, for a worker that it forks is called
    the same until it runs another program."""
    return min(int(line.split()[0]) for line in leftovers.processes_of_this_run(mark) if "/raylet --" in line)


def own_lines(lines: list[str]) -> list[str]:
    """Without what `mesh run` shows of the logs of and about replicas, and tracebacks of Ray's own programs."""
    return [
        line
        for line in lines
        if " replica default/" not in line and " replica second/" not in line and not OF_A_TRACEBACK.match(line)
    ]


def test_a_signal_to_the_whole_group_ends_a_run_with_one_line(tmp_path: Path, ray_files: Path) -> None:
    """As systemd sends it by default: Ray's daemons end first."""
    with started(tmp_path, ray_files, COMMAND) as program:
        program.until_serving().close()
        status, lines = program.end(signal.SIGTERM, to_group=True)
    assert status == 0
    own = own_lines(lines)
    *_, last = own[: own.index("Stopping ...")]
    assert last == ""
    (after,) = filter(None, own[own.index("Stopping ...") + 1 :])
    assert after.startswith("Ray ended first, so calls in progress were cut off."), lines


@pytest.mark.parametrize(("send", "to_group"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_run_that_starts_ray_ends_at_once(tmp_path: Path, ray_files: Path, send: int, to_group: bool) -> None:
    """Also where Ray's daemons get the signal too: the start would wait for them."""
    with started(tmp_path, ray_files, STARTS_RAY) as program:
        until(lambda: [line for line in leftovers.processes_of_this_run(program.mark) if "/raylet --" in line])
        status, lines = program.end(send, to_group=to_group)
    assert (status, lines) == (0, ["Starting Ray ...", "", "Stopping ..."])


def test_a_run_whose_ray_has_lost_its_gcs_before_it_had_a_port_ends(tmp_path: Path, ray_files: Path) -> None:
    """Ray waits for the port in native code, in which no handler and no other thread of the command runs."""
    with started(tmp_path, ray_files, STARTS_RAY) as program:
        until(lambda: [line for line in leftovers.processes_of_this_run(program.mark) if "/gcs_server --" in line])
        status, lines = program.end(signal.SIGTERM, to_group=True)
    assert status in {0, -signal.SIGKILL}, "by itself, or by its guard"
    assert lines == ["Starting Ray ...", "", "Stopping ..."]


def test_a_blocking_program_drains_when_it_is_asked_to_end(tmp_path: Path, ray_files: Path) -> None:
    """A call in progress is answered (item 70)."""
    with started(tmp_path, ray_files, PROGRAM, blocking=True) as program:
        with program.until_serving() as channel:
            # Of seconds in which a scrape finds it, and the signal arrives, on a busy machine too.
            call = shop_pb2_grpc.ShopStub(channel).Price.future(shop_pb2.Item(amount=8), timeout=40)
            until(lambda: metrics.value(program.gateway, "mesh_replica_ongoing_requests") == 1)
            program.process.send_signal(signal.SIGTERM)
            assert call.result().name == "answered"
        status, lines = program.ended(20)
    assert status == 0
    assert not [line for line in lines if "SIGTERM" in line or "Traceback" in line], lines


def test_a_program_says_at_its_end_what_ends_with_it(tmp_path: Path, ray_files: Path) -> None:
    with started(tmp_path, ray_files, PROGRAM, blocking=False) as program:
        status, lines = program.ended(60)
    assert status == 0
    assert lines[-1] == (
        "Ray, which this program started, ends with it, and so does default. To keep it running: "
        "mesh.run(..., blocking=True), or `ray start --head` before this program."
    )


def test_a_ray_that_ends_first_ends_its_programs_with_one_line(tmp_path: Path, ray_files: Path) -> None:
    """Like `ray stop`: a `mesh run` that has attached to Ray, and the program that has started it."""
    with started(tmp_path, ray_files, PROGRAM, blocking=True) as owner:
        assert owner.process.stdout is not None
        address = next(line.strip() for line in owner.process.stdout if line[:1].isdigit())
        owner.until_serving().close()
        arguments = ["run", "shop_of_process_end:app", "--name", "second", "--address", address]
        command = subprocess.Popen(
            [sys.executable, "-c", "from mesh.cli.main import command; command()", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert command.stdout is not None
        assert any(line.startswith("Running;") for line in command.stdout)
        os.kill(raylet(owner.mark), signal.SIGTERM)
        lines = command.communicate(timeout=ENDS_WITHIN_S)[0].splitlines()
        status, lines_of_owner = owner.ended()
    assert (command.returncode, status) == (1, 1)
    said = [RAY_HAS_ENDED]
    assert own_lines(lines) == lines_of_owner[-1:] == said
