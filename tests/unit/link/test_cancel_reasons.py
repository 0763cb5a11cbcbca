"""Each reason for a cancel reaches the user code that it stops, and the caller where it still waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mesh.context import REQUEST, Request, current_request
from mesh.exceptions import CancelReason, DeadlineExceededError, RequestCancelledError
from mesh.link import frames
from mesh.v1 import replica_pb2
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, on_io, until

DEADLINE_S = 30.0
Cancel = Callable[[SmallMesh, Any, Request], None]
pytestmark = pytest.mark.timeout(60)


class Service:
    """Its methods run until they are cancelled, and keep what they learn of the reason."""

    def __init__(self) -> None:
        self.started = 0
        self.texts: list[str] = []
        self.reasons: list[CancelReason | None] = []

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            self._note(error)
            raise

    def produce(self) -> Iterator[int]:
        self.started += 1
        try:
            while True:
                yield 1
        except GeneratorExit as error:
            self._note(error)
            raise

    def _note(self, error: BaseException) -> None:
        request = current_request()
        self.reasons.append(request.cancel_reason if request is not None else None)
        self.texts.append(str(error))


def call_from_a_request(mesh: SmallMesh, timeout_s: float | None = None) -> tuple[Any, Request]:
    """A call made while another request is served."""
    request = Request()
    token = REQUEST.set(request)
    try:
        return mesh.handle("hang", timeout_s=timeout_s).remote(), request
    finally:
        REQUEST.reset(token)


def client(mesh: SmallMesh, response: Any, request: Request) -> None:
    response.cancel()


def parent(mesh: SmallMesh, response: Any, request: Request) -> None:
    request.cancel(CancelReason.CLIENT)


def deadline(mesh: SmallMesh, response: Any, request: Request) -> None:
    """The call has one."""


def link_broken(mesh: SmallMesh, response: Any, request: Request) -> None:
    on_io(mesh.router.close())


def drain(mesh: SmallMesh, response: Any, request: Request) -> None:
    do_on_io(mesh.replicas[0].servicer.stop)


@pytest.mark.parametrize(
    ("cancel", "reason", "text"),
    [
        (client, CancelReason.CLIENT, "by its client"),
        (parent, CancelReason.PARENT, "because the request that made it was cancelled"),
        (deadline, CancelReason.DEADLINE, "because its deadline passed"),
        (link_broken, CancelReason.LINK_BROKEN, "because the connection to its caller broke"),
        (drain, CancelReason.DRAIN, "because the replica drains"),
    ],
    ids=["client", "parent", "deadline", "link broken", "drain"],
)
def test_user_code_learns_why_it_is_cancelled(cancel: Cancel, reason: CancelReason, text: str) -> None:
    service = Service()
    with mesh_of(service) as mesh:
        response, request = call_from_a_request(mesh, timeout_s=1.0 if cancel is deadline else None)
        until(lambda: service.started == 1, "the call to run")
        cancel(mesh, response, request)
        until(lambda: service.reasons, "the user code to be cancelled")
        assert service.reasons == [reason]
        assert service.texts == [f"The request was cancelled {text}."]


@pytest.mark.parametrize(
    ("cancel", "reason"), [(client, CancelReason.CLIENT), (parent, CancelReason.PARENT)], ids=["client", "parent"]
)
def test_the_callers_error_has_the_reason(cancel: Cancel, reason: CancelReason) -> None:
    with mesh_of(Service()) as mesh:
        response, request = call_from_a_request(mesh)
        cancel(mesh, response, request)
        with pytest.raises(RequestCancelledError, match="was cancelled b") as caught:
            response.result(timeout_s=DEADLINE_S)
        assert caught.value.reason is reason


def test_a_call_whose_deadline_passes_fails_with_the_deadlines_own_error() -> None:
    with mesh_of(Service()) as mesh, pytest.raises(DeadlineExceededError):
        mesh.handle("hang", timeout_s=0.1).remote().result(timeout_s=DEADLINE_S)


def test_a_sync_generator_learns_why_it_is_closed() -> None:
    service = Service()
    with mesh_of(service) as mesh:
        stream: Any = mesh.handle("produce", stream=True).remote()
        assert next(stream) == 1
        stream.cancel()
        until(lambda: service.reasons, "the generator to be closed")
        assert service.reasons == [CancelReason.CLIENT]


def test_a_reason_of_a_newer_version_is_unspecified() -> None:
    assert CancelReason(99) is CancelReason.UNSPECIFIED


@pytest.mark.parametrize("reason", CancelReason)
def test_a_cancel_frame_carries_its_reason(reason: CancelReason) -> None:
    (frame,) = replica_pb2.Frames.FromString(frames.pack_cancel(7, reason)).frames
    assert CancelReason(frame.cancel.reason) is reason
    assert replica_pb2.CancelReason.Name(reason.value) == f"CANCEL_REASON_{reason.name}"  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", CancelReason)
def test_the_text_of_an_error_says_its_reason(reason: CancelReason) -> None:
    error = RequestCancelledError(reason=reason)
    assert error.reason is reason
    assert str(error).startswith("The request was cancelled")
    assert str(RequestCancelledError("in other words", reason=reason)) == "in other words"
