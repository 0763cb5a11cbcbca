"""What takes the responses of a call may fail: that ends this call, and no other of its link."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.cluster.ray_objects import StoredObject
from mesh.link import caller_link
from mesh.link.caller_link import CallerLink
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.replica import method_codecs
from mesh.routing.router import Router
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import PICKLE_BUFFERS, Payload, encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until

DEADLINE_S = 30.0
INTERNAL = grpc.StatusCode.INTERNAL.value[0]
pytestmark = pytest.mark.timeout(60)


class Service:
    async def echo(self, value: Any = None) -> Any:
        return value

    async def count(self, *requests: Any) -> AsyncIterator[int]:
        for number in range(1_000_000):
            yield number


class Sink:
    """Raises in the method named `fails_in`."""

    def __init__(self, fails_in: str) -> None:
        self.outcomes: list[Outcome] = []
        self._fails_in = fails_in

    def on_item(self, payload: Payload) -> None:
        self._fail("on_item")

    def on_credit(self) -> None:
        self._fail("on_credit")

    def on_initial_metadata(self, entries: Trailers) -> None:
        self._fail("on_initial_metadata")

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        self._fail("on_compression")

    def on_done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._fail("on_done")

    def _fail(self, name: str) -> None:
        if name == self._fails_in:
            raise ZeroDivisionError("a defect")


def submit(mesh: SmallMesh, sink: Sink, method: str, **options: Any) -> None:
    payload = None if options.get("streams_request") else encode(((), {}))
    call = OutgoingCall(CallRequest(method, payload, RequestContext("id"), **options), sink)
    io_thread().call(mesh.router.submit, call)


def link_of(mesh: SmallMesh) -> CallerLink:
    (endpoint,) = mesh.endpoints.values()
    assert endpoint.link is not None
    return endpoint.link


@pytest.mark.parametrize(
    ("fails_in", "options"),
    [
        ("on_item", {"method": "count", "streams_response": True}),
        ("on_credit", {"method": "count", "streams_request": True, "streams_response": True}),
        ("on_done", {"method": "echo"}),
    ],
)
def test_a_sink_that_raises_ends_its_call_alone(
    fails_in: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with mesh_of(Service()) as mesh:
        link, other, sink = link_of(mesh), mesh.handle("count", stream=True).remote(), Sink(fails_in)
        assert next(other) == 0
        submit(mesh, sink, **options)
        until(lambda: sink.outcomes, "the end of the call")
        if fails_in != "on_done":
            assert [outcome.code for outcome in sink.outcomes] == [INTERNAL]
            until(lambda: mesh.replicas[0].ongoing == 1, "the place of the call")
        assert [next(other) for _ in range(300)] == list(range(1, 301))
        assert link_of(mesh) is link
        assert "a defect" in caplog.text
        other.cancel()
        mesh.assert_idle()


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_router_that_fails_at_a_result_still_ends_the_call(is_stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a defect")

    def stored(value: object, *arguments: object) -> Payload:
        return Payload(PICKLE_BUFFERS, pickle.dumps(value), stored=StoredObject(b"id", b"owner", b"status"))

    with mesh_of(Service()) as mesh:
        link, sink = link_of(mesh), Sink("")
        with monkeypatch.context() as patched:
            if is_stored:
                patched.setattr(method_codecs, "encode", stored)
                patched.setattr(caller_link, "load_buffers", lambda *arguments: [])
            patched.setattr(Router, "on_result", fail)
            submit(mesh, sink, "echo")
            until(lambda: sink.outcomes, "the end of the call")
        assert [outcome.code for outcome in sink.outcomes] == [INTERNAL]
        assert mesh.handle("echo").remote(1).result(timeout_s=DEADLINE_S) == 1
        assert link_of(mesh) is link
