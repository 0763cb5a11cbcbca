"""Faults: replicas that are killed, user code that blocks its loop, and strangers at a replica's port."""

import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from mesh.exceptions import CancelReason, MeshException, ReplicaUnavailableError, RequestCancelledError
from mesh.link import frames
from mesh.link.link_stream import LINK_METHOD
from mesh.v1 import replica_pb2
from mesh.wire.mesh_token import local_socket, mesh_token
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.metrics import in_flight, value
from tests.e2e.replicas import running
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]

PLACES = 50
BLOCKED_MAX_S = 60.0


@small(num_replicas=2, max_ongoing_requests=PLACES)
class Worker:
    """Its calls wait at the gate and tell which replica they ran on."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        await self._gate.wait.remote(label)
        return mesh.get_replica_context().replica_id

    async def stream(self, label: str) -> Any:
        yield mesh.get_replica_context().replica_id
        await self._gate.wait.remote(label)
        yield label

    async def echo(self, value: Any) -> Any:
        return value


@small(num_replicas=2, max_ongoing_requests=100)
class Blocker:
    async def block(self, until_there: Path) -> str:
        ends_s = time.monotonic() + BLOCKED_MAX_S
        while not until_there.exists() and time.monotonic() < ends_s:  # noqa: ASYNC240 - so is this
            time.sleep(0.01)  # noqa: ASYNC251 - this is the fault
        return mesh.get_replica_context().replica_id

    async def where(self) -> str:
        return mesh.get_replica_context().replica_id


@pytest.fixture(scope="module")
def worker(deploy: Deploy) -> Handle:
    return deploy(Worker.bind(Gate.bind()), "faults")


@pytest.fixture
def gate(worker: Handle) -> Handle:
    return mesh.get_deployment_handle("Gate", "faults")


def until_two_run(app: str, deployment: str) -> dict[str, Any]:
    """Not counting one that the test before has killed and that is still listed."""

    def found() -> dict[str, Any]:
        alive = {key: each for key, each in running(app, deployment).items() if Path(f"/proc/{each.pid}").exists()}
        return alive if len(alive) == 2 else {}

    return until(found, timeout_s=30)


def test_a_killed_replica_fails_what_it_executed_and_nothing_else(
    worker: Handle, gate: Handle, gateway: Gateway
) -> None:
    """Of 200 calls each of 2 replicas executes 50; the rest is queued (items 37, 165, 166)."""
    before, restarts = until_two_run("faults", "Worker"), restarts_of("faults", "Worker")
    calls = [worker.remote("crash") for _ in range(4 * PLACES)]
    until(lambda: gate.entered.remote().result(timeout_s=10).count("crash") == 2 * PLACES)
    victim = min(before)
    os.kill(before[victim].pid, signal.SIGKILL)
    gate.open.remote("crash").result(timeout_s=10)
    outcomes = Counter(outcome_of(call) for call in calls)
    assert outcomes.pop(f"lost on {victim}") == PLACES
    assert victim not in outcomes
    assert sum(outcomes.values()) == 3 * PLACES
    until(lambda: victim not in running("faults", "Worker"))
    after = until_two_run("faults", "Worker")
    assert len(before.keys() & after.keys()) == 1
    assert restarts_of("faults", "Worker") == restarts + 1
    labels = {"application": "faults", "deployment": "Worker", "reason": "died"}
    assert value(gateway, "mesh_replica_restarts_total", **labels) == restarts + 1
    until(lambda: in_flight(gateway, application="faults") == 0)


def restarts_of(app: str, deployment: str) -> int:
    return mesh.status().applications[app].deployments[deployment].restarts


def outcome_of(call: Any) -> str:
    """The replica that answered, or the one that the error names."""
    try:
        return str(call.result(timeout_s=20))
    except ReplicaUnavailableError as error:
        is_named = error.maybe_executed and error.replica_id in str(error)
        return f"lost on {error.replica_id}" if is_named else repr(error)


def test_a_stream_from_a_killed_replica_ends_with_an_error_that_names_it(worker: Handle) -> None:
    before = until_two_run("faults", "Worker")
    items = worker.options(stream=True).stream.remote("crashed stream")
    replica_id = next(items)
    os.kill(before[replica_id].pid, signal.SIGKILL)
    with pytest.raises(ReplicaUnavailableError, match=replica_id):
        next(items)


def test_a_response_from_a_killed_replica_fails_the_call_it_feeds_and_names_both(worker: Handle, gate: Handle) -> None:
    """The second call is never sent (item 30)."""
    before = until_two_run("faults", "Worker")
    upstream = worker.remote("crashed upstream")
    until(lambda: "crashed upstream" in gate.entered.remote().result(timeout_s=10))
    downstream = gate.wait.remote(upstream)
    victim = until(lambda: busy_replica(upstream, before))
    os.kill(before[victim].pid, signal.SIGKILL)
    with pytest.raises(MeshException, match=r"Gate.*Worker"):
        downstream.result(timeout_s=20)
    assert gate.entered.remote().result(timeout_s=10)


def busy_replica(response: Any, replicas: dict[str, Any]) -> str:
    """The replica that has the call now."""
    call = response._future.call
    found = call.link.replica_id if call is not None and call.link is not None else ""
    return found if found in replicas else ""


def test_idempotent_calls_survive_the_death_of_their_replica(worker: Handle, gate: Handle) -> None:
    before = until_two_run("faults", "Worker")
    calls = [worker.options(idempotent=True).remote("again") for _ in range(PLACES)]
    until(lambda: gate.entered.remote().result(timeout_s=10).count("again") == PLACES)
    victim = min(before)
    os.kill(before[victim].pid, signal.SIGKILL)
    gate.open.remote("again").result(timeout_s=10)
    assert victim not in {call.result(timeout_s=20) for call in calls}


def test_a_link_that_breaks_is_made_again_to_the_same_replica(deploy: Deploy) -> None:
    """What was under way may have run, so it fails; the replica is well, and the next call finds it."""
    gate = deploy(Gate.bind(), "cut")
    (replica,) = until(lambda: running("cut", "Gate")).values()
    call = gate.wait.remote("cut off")
    until(lambda: gate.entered.remote().result(timeout_s=10) == ["cut off"])
    assert break_connections(replica.address) == 1
    with pytest.raises(ReplicaUnavailableError, match=replica.replica_id):
        call.result(timeout_s=20)
    assert gate.entered.remote().result(timeout_s=10) == ["cut off"], "it is the same object as before"
    until(lambda: "cut off" in gate.cancelled_at_s.remote().result(timeout_s=10))
    assert running("cut", "Gate")[replica.replica_id].pid == replica.pid


def break_connections(address: str) -> int:
    """End the connections of this process to a replica on this node; returns how many there were."""
    names = {address, local_socket(address, mesh_token())}
    count = 0
    for number in os.listdir("/proc/self/fd"):
        # What is open may be closed by another thread between any two of these lines.
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(number))) as connection:
                if peer_name(connection) in names:
                    connection.shutdown(socket.SHUT_RDWR)
                    count += 1
    return count


def peer_name(connection: socket.socket) -> str:
    """ "host:port", or the name of a Unix socket."""
    peer = connection.getpeername()
    match connection.family:
        case socket.AF_INET | socket.AF_INET6:
            return f"{peer[0].removeprefix('::ffff:')}:{peer[1]}"
        case socket.AF_UNIX:
            return peer.decode() if isinstance(peer, bytes) else peer
    return ""


def test_code_that_blocks_its_loop_delays_no_other_replica(deploy: Deploy, gateway: Gateway, tmp_path: Path) -> None:
    """Routing and other replicas go on (items 15, 147)."""
    blocker = deploy(Blocker.bind(), "blocked")
    until_two_run("blocked", "Blocker")
    blocker.where.remote().result(timeout_s=10)
    until(lambda: value(gateway, "mesh_links", application="blocked") == 2)
    blocking = blocker.block.remote(tmp_path / "release")
    until(lambda: value(gateway, "mesh_replica_ongoing_requests", application="blocked") == 1)
    others = {blocker.where.remote().result(timeout_s=10) for _ in range(50)}
    # Many at the same time: some go to the blocked replica, and can be cancelled there.
    many = [blocker.where.remote() for _ in range(20)]
    stuck = until(lambda: calls_at_the_blocked_replica(gateway, many))
    for call in stuck:
        call.cancel()
        with pytest.raises(RequestCancelledError):
            call.result(timeout_s=10)
    until(lambda: value(gateway, "mesh_replica_cancelled_total", application="blocked") == len(stuck))
    assert blocking._future.outcome is None, "all of this happens while the loop is blocked"
    (tmp_path / "release").touch()
    blocked_replica = blocking.result(timeout_s=10)
    assert len(others) == 1
    assert blocked_replica not in others


def calls_at_the_blocked_replica(gateway: Gateway, calls: list[Any]) -> list[Any]:
    """Those without an answer, once all others have theirs: only the blocking call is there besides."""
    waiting = [call for call in calls if call._future.outcome is None]
    ongoing = value(gateway, "mesh_replica_ongoing_requests", application="blocked")
    return waiting if ongoing == 1 + len(waiting) else []


def hello(replica_id: str, token: bytes) -> bytes:
    return frames.pack_hello(replica_id, token)


def answers(address: str, *messages: bytes) -> tuple[list[bytes], grpc.StatusCode, str]:
    """What a replica's port answers to messages, and the status it ends the stream with."""
    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(LINK_METHOD)(iter(messages), timeout=10)
        received = []
        with contextlib.suppress(grpc.RpcError):
            received.extend(stream)
        return received, stream.code(), stream.details()


def test_a_stranger_is_turned_away_before_anything_of_his_is_looked_at(worker: Handle) -> None:
    replica_id, replica = next(iter(until_two_run("faults", "Worker").items()))
    open_frame = frames.pack(replica_pb2.Frame(call_id=1, open=replica_pb2.Open(method="echo")))
    for first in (hello(replica_id, b"wrong"), hello(replica_id, b""), hello("another", mesh_token()), open_frame, b""):
        received, code, details = answers(replica.address, first, open_frame)
        assert (received, code) == ([], grpc.StatusCode.UNAUTHENTICATED), first
        assert details
    assert worker.echo.remote("unharmed").result(timeout_s=10) == "unharmed"


def test_garbage_ends_the_link_that_sent_it_and_no_other(worker: Handle) -> None:
    replica_id, replica = next(iter(until_two_run("faults", "Worker").items()))
    greeting = hello(replica_id, mesh_token())
    dice = random.Random(9)
    for size in (1, 10, 1000, 100_000):
        _, code, _ = answers(replica.address, greeting, b"\xff" + dice.randbytes(size))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        _, code, _ = answers(replica.address, b"\xff" + dice.randbytes(size))
        assert code is grpc.StatusCode.UNAUTHENTICATED
    misplaced = frames.pack(replica_pb2.Frame(welcome=replica_pb2.Welcome()))
    _, code, details = answers(replica.address, greeting, misplaced)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "welcome" in details
    assert worker.echo.remote("unharmed").result(timeout_s=10) == "unharmed"


def test_frames_for_an_unknown_call_are_harmless(worker: Handle) -> None:
    """The call may have ended while they were on their way."""
    replica_id, replica = next(iter(until_two_run("faults", "Worker").items()))
    unknown = 4711
    unexpected = [
        frames.pack_credit(unknown, 5),
        frames.pack_half_close(unknown),
        frames.pack(replica_pb2.Frame(call_id=unknown, item=replica_pb2.Item())),
        frames.pack_release(b"no such object"),
        frames.pack_cancel(unknown, CancelReason.CLIENT),
    ]
    received, code, _ = answers(replica.address, hello(replica_id, mesh_token()), b"".join(unexpected))
    kinds = [frame.WhichOneof("kind") for data in received for frame in replica_pb2.Frames.FromString(data).frames]
    assert code is grpc.StatusCode.OK
    assert kinds[0] == "welcome"
    assert set(kinds[1:]) <= {"result"}
    assert worker.echo.remote("unharmed").result(timeout_s=10) == "unharmed"
