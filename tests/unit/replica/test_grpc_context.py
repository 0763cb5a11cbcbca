"""The gRPC context against gRPC's own two: each of their methods works, or raises with advice (item 217)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.context import Request
from mesh.replica.grpc_context import GrpcContext
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
