"""The gRPC context against gRPC's own two: each of their methods works, or raises with advice (item 217)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from mesh.context import Request
from mesh.exceptions import GrpcStatusError
from mesh.replica.grpc_context import GrpcContext
from mesh.rpc.status_details import DETAILS_KEY
from mesh.wire.identity import Identity
from mesh.wire.outcome import failed_in_user_code
from mesh.wire.request_context import RequestContext


def context(*metadata: tuple[str, str | bytes]) -> GrpcContext:
    return GrpcContext(Request(RequestContext("id"), None), metadata, "ipv4:10.0.0.7:50312")


@pytest.mark.parametrize("interface", [grpc.ServicerContext, grpc.aio.ServicerContext])
def test_no_method_of_grpc_is_missing(interface: type) -> None:
    assert not [name for name in dir(interface) if not name.startswith("_") and not hasattr(GrpcContext, name)]


def test_cancel_raises_with_advice() -> None:
    with pytest.raises(RuntimeError, match=r"cancel\(\) .* end the call with abort\(grpc.StatusCode.CANCELLED, ...\)"):
        context().cancel()


@pytest.mark.parametrize(
    "use",
    [
        lambda used: used.send_initial_metadata([("k", "v")]),
        lambda used: used.set_compression(grpc.Compression.Gzip),
    ],
)
def test_nothing_about_headers_can_be_said_when_they_have_left(use: Callable[[GrpcContext], Any]) -> None:
    """The same with and without `await`, because it raises before there is something to await."""
    used = context()
    use(used)
    used.end()
    with pytest.raises(RuntimeError, match="comes too late: the headers of the response are sent once"):
        use(used)
    used.disable_next_message_compression()


def test_initial_metadata_are_sent_with_and_without_await() -> None:
    async def send() -> None:
        await context().send_initial_metadata([("k", "v")])

    asyncio.run(send())
    used = context()
    used.send_initial_metadata(())
    assert used.has_sent_headers


DETAILED = GrpcStatusError.with_details(grpc.StatusCode.NOT_FOUND, "none", ErrorInfo(reason="SOLD_OUT"))


def test_details_of_a_raised_error_stay_beside_metadata_that_the_method_has_set() -> None:
    """Both reach the client (items 142, 217)."""
    used = context()
    used.set_trailing_metadata([("weight", "7")])
    outcome = used.apply(failed_in_user_code(DETAILED))
    assert outcome.trailers == (*DETAILED.trailers, ("weight", b"7"))


@pytest.mark.parametrize(
    "use", [lambda used: used.set_code(grpc.StatusCode.DATA_LOSS), lambda used: used.set_details("another")]
)
def test_a_status_that_the_method_has_set_goes_without_details_of_another(use: Callable[[GrpcContext], Any]) -> None:
    """Clients would refuse them (item 218)."""
    used = context()
    use(used)
    outcome = used.apply(failed_in_user_code(DETAILED))
    assert (outcome.code, outcome.message) != (grpc.StatusCode.NOT_FOUND.value[0], "none")
    assert outcome.trailers == ()


def test_aborting_with_details_sends_them_once() -> None:
    """As grpcio-status makes them for servicers of any server."""
    status = status_pb2.Status(code=5, message="none")
    used = context()
    with pytest.raises(GrpcStatusError) as caught:
        used.abort_with_status(rpc_status.to_status(status))
    outcome = used.apply(failed_in_user_code(caught.value))
    assert outcome.trailers == ((DETAILS_KEY, status.SerializeToString()),)


def test_metadata_has_the_fields_of_grpc() -> None:
    """Binary values stay bytes."""
    pairs = context(("k", b"v"), ("k-bin", b"\xff")).invocation_metadata()
    assert pairs == (("k", "v"), ("k-bin", b"\xff"))
    assert [(pair.key, pair.value) for pair in pairs] == [("k", "v"), ("k-bin", b"\xff")]


def test_a_call_is_done_when_its_method_has_ended() -> None:
    used = context()
    calls: list[object] = []
    used.add_done_callback(calls.append)
    assert used.add_callback(lambda: calls.append("without an argument"))
    assert (used.done(), used.is_active(), used.cancelled()) == (False, True, False)
    used.end()
    assert (used.done(), used.is_active(), used.cancelled()) == (True, False, False)
    assert calls == [used, "without an argument"]
    assert not used.add_callback(lambda: calls.append("too late"))


def test_a_callback_that_raises_keeps_none_of_the_others_from_running() -> None:
    """One may give something back; the call fails with the error."""
    used = context()
    calls: list[object] = []
    used.add_done_callback(lambda used: 1 / 0)
    used.add_callback(lambda: calls.append("given back"))
    with pytest.raises(ZeroDivisionError):
        used.end()
    assert calls == ["given back"]


def test_a_status_is_one_of_grpc_and_an_abort_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"set_code\(\) takes a grpc.StatusCode, got 5"):
        context().set_code(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="return the response instead"):
        context().abort(grpc.StatusCode.OK, "fine")


def test_messages_are_read_and_written_in_async_methods_only() -> None:
    """In a thread the coroutine would be dropped, and the message with it."""
    used = context()
    written: list[object] = []

    async def write(message: object) -> None:
        written.append(message)

    async def read() -> str:
        return "a message"

    used.write_message, used.read_message = write, read
    with pytest.raises(RuntimeError, match="`yield` the message"):
        used.write("lost")
    with pytest.raises(RuntimeError, match="iterate over the request"):
        used.read()

    async def converse() -> object:
        await used.write("sent")
        return await used.read()

    assert asyncio.run(converse()) == "a message"
    assert written == ["sent"]
    with pytest.raises(RuntimeError, match="for methods with a streamed request"):
        context().read()


def test_the_identity_of_the_client_has_grpc_s_names() -> None:
    """As in gRPC there is none where the gateway does not ask (item 217)."""
    unknown = context()
    assert (unknown.peer_identities(), unknown.peer_identity_key(), unknown.auth_context()) == (None, None, {})
    request = Request(RequestContext("id", identity=Identity("alice", {"role": "admin"})), None)
    known = GrpcContext(request, (), "ipv4:10.0.0.7:50312")
    assert (known.peer_identities(), known.peer_identity_key()) == ([b"alice"], "identity")
    assert known.auth_context() == {"identity": [b"alice"], "role": [b"admin"]}


def test_the_request_has_the_names_of_ray_serve() -> None:
    """None for what it does not have (item 217)."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    served = RequestContext("id", app="shop", multiplexed_model_id="m", traceparent=trace, tracestate="a=b")
    full = GrpcContext(Request(served, None), (), "ipv4:10.0.0.7:50312")
    assert (full.request_id(), full.application(), full.multiplexed_model_id()) == ("id", "shop", "m")
    assert (full.traceparent(), full.tracestate()) == (trace, "a=b")
    bare = context()
    assert (bare.multiplexed_model_id(), bare.traceparent(), bare.tracestate()) == (None, None, None)
