"""Handles over real links: arguments that are responses themselves."""

import pickle
import re
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from mesh.caller import call_arguments
from mesh.caller.response import DeploymentResponse
from mesh.cluster import ray_objects
from mesh.exceptions import (
    DeadlineExceededError,
    MeshException,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from mesh.wire import payload
from mesh.wire.io_thread import io_thread
from mesh.wire.payload import Payload
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until
from tests.unit.handle.store import DEADLINE_S, Store, raised, result

pytestmark = pytest.mark.timeout(60)


def test_responses_are_arguments_without_being_awaited(mesh: SmallMesh) -> None:
    """Chains of any depth work (item 29)."""
    handle = mesh.handle()
    first = handle.remote(b"x" * 1_000_000)
    chain: Any = first
    for _ in range(10):
        chain = handle.plain.remote(value=chain)
    assert result(chain) == result(first)


def test_a_failed_argument_fails_the_call_and_spares_its_siblings(mesh: SmallMesh, store: Store) -> None:
    """The caller gets the error of the argument (item 29)."""
    handle = mesh.handle()
    sibling = handle.block.remote()
    failed = handle.fail.remote("zero")

    assert isinstance(raised(handle.remote(sibling, failed)), ZeroDivisionError)
    store.gate.set()
    assert result(sibling) == "unblocked"


def test_a_chain_may_be_as_long_as_a_program_makes_it(mesh: SmallMesh) -> None:
    """Nothing recurs with its length, and any part of it may be asked for first (item 29)."""
    handle = mesh.handle()
    chain = [handle.remote(0)]
    for _ in range(1000):
        chain.append(handle.plain.remote(chain[-1]))
    assert result(chain[-1]) == result(chain[500]) == result(chain[0]) == 0


def test_a_call_that_is_cancelled_while_its_argument_is_awaited_never_runs(mesh: SmallMesh, store: Store) -> None:
    """The argument's own call goes on (items 35, 37)."""
    upstream = mesh.handle("block").remote()
    doomed = mesh.handle("hang").remote(upstream)
    doomed.cancel()
    assert isinstance(raised(doomed), RequestCancelledError)
    until(lambda: not mesh.router.counts.collecting, "the end of the wait for its argument")
    store.gate.set()
    assert result(mesh.handle().remote(upstream)) == "unblocked"
    assert store.started == 1, "the upstream call alone"


def test_the_death_of_an_argument_s_replica_blames_that_one(mesh: SmallMesh, store: Store) -> None:
    """The error names both deployments, and the other replica serves on (item 30)."""
    with mesh_of(Store()) as upstream:
        hanging = upstream.handle("hang").remote()
        fed = mesh.handle().remote(hanging)
        until(lambda: upstream.replicas[0].ongoing, "the call to run")
        upstream.replicas[0].kill()
        error = raised(fed)
    assert isinstance(error, MeshException)
    assert not isinstance(error, ReplicaUnavailableError)
    expected = r"The call to shop/Store was not sent: its argument, a call to shop/Store, failed: Replica \S+ is unav"
    assert re.match(expected, str(error))
    assert result(mesh.handle().remote(1)) == 1


def test_the_deadline_counts_while_arguments_are_awaited(mesh: SmallMesh, store: Store) -> None:
    upstream = mesh.handle("hang").remote()
    error = raised(mesh.handle(timeout_s=0.05).remote(upstream))
    assert isinstance(error, DeadlineExceededError)
    until(lambda: not mesh.router.counts.collecting, "the end of the wait for its argument")
    upstream.cancel()


def test_a_stream_is_no_argument(mesh: SmallMesh) -> None:
    """The stream can still be read (item 31)."""
    stream = mesh.handle("count", stream=True).remote(1)
    with pytest.raises(RuntimeError, match="cannot be passed to downstream handle calls"):
        mesh.handle().remote(stream)
    assert list(stream) == [0]


def test_a_response_cannot_be_pickled(mesh: SmallMesh) -> None:
    """The error says how to pass it on (item 41)."""
    response = mesh.handle().remote(1)
    with pytest.raises(MeshException, match="top-level argument"):
        pickle.dumps(response)
    assert result(response) == 1


class Reference:
    """Stands for an ObjectRef whose object is here, or whose task failed."""

    def __init__(self, value: object = None, error: Exception | None = None) -> None:
        self.future: Future[Any] = Future()
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


class Gate:
    def __init__(self) -> None:
        self.reached, self.opens = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opens.wait(DEADLINE_S)


class SlowToPickle:
    """As a large tree of objects is."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __reduce__(self) -> Any:
        self.gate.pass_through()
        return int, (7,)


class SlowError(Exception):
    def __init__(self, gate: Gate) -> None:
        super().__init__("slow")
        self.gate = gate

    def __reduce__(self) -> Any:
        self.gate.pass_through()
        return RuntimeError, ("slow",)


@pytest.fixture
def _with_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_arguments, "_NOT_YET_VALUES", (Reference, DeploymentResponse))
    monkeypatch.setattr(ray_objects, "ObjectRef", Reference)
    monkeypatch.setattr(ray_objects, "object_future", lambda reference: reference.future)


@pytest.mark.usefixtures("_with_references")
@pytest.mark.parametrize("fails", [False, True])
def test_pickling_what_was_waited_for_delays_no_other_call(mesh: SmallMesh, fails: bool) -> None:
    """Neither values of references nor the errors of their tasks are pickled on the I/O loop."""
    gate = Gate()
    reference = Reference(error=SlowError(gate)) if fails else Reference(SlowToPickle(gate))
    slow = mesh.handle().remote(reference)
    assert gate.reached.wait(DEADLINE_S)
    assert result(mesh.handle().remote(2)) == 2, "an unrelated call, meanwhile"
    gate.opens.set()
    if fails:
        assert "slow" in str(raised(slow))
    else:
        assert result(slow) == 7


@pytest.mark.usefixtures("_with_references")
def test_references_are_replaced_before_a_call_is_queued() -> None:
    """By position and by name; a failed task fails the call with its own error (item 32)."""
    late = Reference.__new__(Reference)
    late.future = Future()
    with mesh_of(Store(), limit=1, queued_max=1) as mesh:
        handle = mesh.handle()
        waiting = [handle.remote(late), handle.plain.remote(value=late), handle.remote(late)]
        assert result(handle.remote("what needs no wait")) == "what needs no wait"
        assert mesh.router.queued == 0
        assert isinstance(raised(handle.remote(Reference(error=LookupError("no such task")))), LookupError)
        for each in waiting[1:]:
            each.cancel()
        late.future.set_result("here")
        assert result(waiting[0]) == "here"
        assert result(handle.plain.remote(value=late)) == "here"
        mesh.assert_idle()


def test_arguments_that_were_waited_for_are_encoded_in_a_thread(
    mesh: SmallMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones are copied, or put into the object store, which waits when it is full."""
    threads: list[threading.Thread] = []

    def encode(value: object, what: str) -> Payload:
        if what == "arguments":
            threads.append(threading.current_thread())
        return payload.encode(value, what)

    monkeypatch.setattr(call_arguments, "encode", encode)
    first = mesh.handle().remote(b"x" * 1_000_000)
    assert len(result(mesh.handle().remote(first))) == 1_000_000
    assert threads
    assert io_thread().thread not in threads
