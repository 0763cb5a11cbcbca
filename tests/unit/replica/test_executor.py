"""mesh.replica.executor: whatever becomes of a call on its way into user code, it ends and gives its place back."""

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest

from mesh.caller.call_future import CallFuture
from mesh.caller.response import DeploymentResponse
from mesh.cluster import ray_objects
from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import DeadlineExceededError
from mesh.link.callee_link import IncomingCall
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.replica import executor
from mesh.settings import settings
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE_BUFFERS, Payload, encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, SmallReplica, do_on_io, mesh_of, on_io, until

DEADLINE_S = 30.0
INTERNAL = grpc.StatusCode.INTERNAL.value[0]
STORED = StoredObject(b"id", b"owner", b"status")


class OutcomesOnly:
    """Takes the place of a link."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def finish(self, call: IncomingCall, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Store:
    def price(self, item: str) -> int:
        return len(item)


@pytest.mark.parametrize("stored", [None, STORED])
def test_a_call_for_which_no_thread_is_left_ends(stored: StoredObject | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "load_buffers", lambda *arguments: [])
    replica, link = SmallReplica(Store()), OutcomesOnly()
    any_link: Any = link
    request = CallRequest("price", Payload(PICKLE_BUFFERS, b"", stored=stored), RequestContext("id"))
    try:
        replica.user_loop.threads.shutdown()
        do_on_io(replica.executor.start, IncomingCall(any_link, 1, request, 0))
        until(lambda: link.outcomes, "the outcome")
        assert "shutdown" in link.outcomes[0].message
    finally:
        replica.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, asyncio.CancelledError])
def test_a_call_of_a_property_that_raises_ends(error: type[BaseException]) -> None:
    """It is looked up on the I/O loop, where `sys.exit` would otherwise end the link with all its calls."""

    class Locked:
        @property
        def price(self) -> Any:
            raise error("locked")

    with mesh_of(Locked()) as mesh:
        for _ in range(2):
            outcome = mesh.handle("price").remote()._future.wait_blocking(DEADLINE_S)
            assert (outcome.code, outcome.message) == (INTERNAL, f"{error.__name__}: locked")
        mesh.assert_idle()


class Vault:
    """Stands for an object store from which nothing comes until it opens."""

    def __init__(self) -> None:
        self.asked = 0
        self.opens = threading.Event()

    def load(self, *arguments: object) -> list[Any]:
        self.asked += 1
        assert self.opens.wait(DEADLINE_S)
        return []


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    vault = Vault()
    monkeypatch.setattr(executor, "load_buffers", vault.load)
    yield vault
    vault.opens.set()


def submitted(mesh: SmallMesh, **options: Any) -> DeploymentResponse[Any]:
    """A call whose argument is in the object store."""
    payload = Payload(PICKLE_BUFFERS, encode((("ox",), {})).data, stored=STORED)
    future = CallFuture(mesh.router, None)
    call = future.call = OutgoingCall(CallRequest("price", payload, RequestContext("id"), **options), future)
    io_thread().call(mesh.router.submit, call)
    return DeploymentResponse(future, "id")


def test_a_call_ends_at_its_deadline_while_its_arguments_are_fetched(vault: Vault) -> None:
    with mesh_of(Store(), limit=8) as mesh:
        calls = [submitted(mesh, deadline_at_s=time.monotonic() + 0.1) for _ in range(8)]
        for call in calls:
            with pytest.raises(DeadlineExceededError):
                call.result(timeout_s=DEADLINE_S)
        mesh.assert_idle()
        assert not vault.opens.is_set()


def test_a_cancel_ends_a_call_while_its_arguments_are_fetched(vault: Vault) -> None:
    with mesh_of(Store(), limit=1) as mesh:
        call = submitted(mesh)
        until(lambda: vault.asked, "the fetch")
        call.cancel()
        mesh.assert_idle()
        vault.opens.set()
        assert submitted(mesh).result(timeout_s=DEADLINE_S) == 2


@pytest.mark.parametrize("work", [Work.ENCODE, Work.LOOK_UP])
def test_lost_objects_hold_up_no_other_work(vault: Vault, work: Work) -> None:
    with mesh_of(Store()) as mesh:
        calls = [submitted(mesh) for _ in range(settings().payload.object_fetch_threads)]
        until(lambda: vault.asked == len(calls), "all threads that fetch to be taken")
        assert on_io(run_blocking(work, lambda: 7)) == 7
        vault.opens.set()
        assert [call.result(timeout_s=DEADLINE_S) for call in calls] == [2] * len(calls)


@pytest.mark.parametrize(("deadline_in_s", "timeout_s"), [(None, 300.0), (5.0, 5.0), (9000.0, 300.0), (-1.0, 0.0)])
def test_a_fetch_takes_no_longer_than_its_call(
    deadline_in_s: float | None, timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float] = []
    fake = SimpleNamespace(
        ObjectRef=MagicMock(), _private=MagicMock(), get=lambda _, *, timeout: timeouts.append(timeout) or []
    )
    monkeypatch.setattr(ray_objects, "ray", fake)
    ray_objects.load_buffers(STORED, None if deadline_in_s is None else time.monotonic() + deadline_in_s)
    assert timeouts == [pytest.approx(timeout_s, abs=1.0)]
