"""The interoperability cases of gRPC, from a stock client through a gateway and back (items 211–220).

Cases of the public list that need credentials of a cloud, or a server that tells whether a request was compressed, are
left out: the gateway decompresses requests, so user code cannot know.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.counting_proxy import counting
from tests.e2e.gate import small
from tests.e2e.protos import interop_pb2, interop_pb2_grpc

Status = grpc.StatusCode
Request, StreamRequest, Nothing = interop_pb2.Request, interop_pb2.StreamRequest, interop_pb2.Nothing

TIMEOUT_S = 20
LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159
UPLOADS = (27_182, 8, 1_828, 45_904)
DOWNLOADS = (31_415, 9, 2_653, 58_979)
INITIAL, TRAILING = (
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    (
        "x-grpc-test-echo-trailing-bin",
        b"\xab\xab\xab",
    ),
)
PLAIN_STATUS = interop_pb2.EchoStatus(code=2, message="test status message")
SPECIAL_STATUS = interop_pb2.EchoStatus(
    code=2, message="\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
)
COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
CODES = {code.value[0]: code for code in Status}


@small(max_ongoing_requests=100)
class Interop(interop_pb2_grpc.InteropServicer):
    async def Empty(self, request: Any, context: Any) -> Any:
        return Nothing()

    async def Unary(self, request: Any, context: Any) -> Any:
        await echo_metadata(context)
        await end_with(request, context)
        compress(request, context)
        return interop_pb2.Response(payload=bytes(request.response_bytes))

    async def Outputs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        compress(request, context)
        for size in request.response_bytes:
            yield interop_pb2.Response(payload=bytes(size))

    async def Inputs(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        return interop_pb2.Sum(payload_bytes=sum([len(each.payload) async for each in request_iterator]))

    async def Duplex(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await echo_metadata(context)
        async for request in request_iterator:
            await asyncio.sleep(request.pause_s)
            await end_with(request, context)
            for size in request.response_bytes:
                yield interop_pb2.Response(payload=bytes(size))


async def echo_metadata(context: Any) -> None:
    sent = dict(context.invocation_metadata())
    if INITIAL[0] in sent:
        await context.send_initial_metadata(((INITIAL[0], sent[INITIAL[0]]),))
    if TRAILING[0] in sent:
        context.set_trailing_metadata(((TRAILING[0], sent[TRAILING[0]]),))


async def end_with(request: Any, context: Any) -> None:
    if request.HasField("status"):
        await context.abort(CODES[request.status.code], request.status.message)


def compress(request: Any, context: Any) -> None:
    if request.compression:
        context.set_compression(COMPRESSIONS[request.compression])


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> None:
    deploy(Interop.bind(), "interop")


@pytest.fixture
def stub(deployed: None, channel: grpc.Channel) -> Any:
    return interop_pb2_grpc.InteropStub(channel)


class Talk:
    """A call whose requests are sent one by one."""

    def __init__(self, call: Callable[..., Any], **options: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = call(iter(self._requests.get, None), timeout=options.pop("timeout", TIMEOUT_S), **options)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def end(self) -> None:
        self._requests.put(None)


def test_empty_unary(stub: Any) -> None:
    assert stub.Empty(Nothing(), timeout=TIMEOUT_S) == Nothing()


def test_large_unary(stub: Any) -> None:
    request = Request(payload=bytes(LARGE_REQUEST), response_bytes=LARGE_RESPONSE)
    assert stub.Unary(request, timeout=TIMEOUT_S).payload == bytes(LARGE_RESPONSE)


def test_client_streaming(stub: Any) -> None:
    requests = (Request(payload=bytes(size)) for size in UPLOADS)
    assert stub.Inputs(requests, timeout=TIMEOUT_S).payload_bytes == 74_922


def test_server_streaming(stub: Any) -> None:
    responses = stub.Outputs(StreamRequest(response_bytes=DOWNLOADS), timeout=TIMEOUT_S)
    assert [len(response.payload) for response in responses] == list(DOWNLOADS)


def test_ping_pong(stub: Any) -> None:
    talk = Talk(stub.Duplex)
    for upload, download in zip(UPLOADS, DOWNLOADS, strict=True):
        talk.send(StreamRequest(payload=bytes(upload), response_bytes=[download]))
        assert len(next(talk.call).payload) == download
    talk.end()
    assert list(talk.call) == []
    assert talk.call.code() is Status.OK


def test_empty_stream(stub: Any) -> None:
    call = stub.Duplex(iter(()), timeout=TIMEOUT_S)
    assert list(call) == []
    assert call.code() is Status.OK


def test_cancel_after_begin(stub: Any) -> None:
    talk = Talk(stub.Inputs.future)
    talk.call.cancel()
    talk.end()
    assert talk.call.cancelled()
    assert talk.call.code() is Status.CANCELLED


def test_cancel_after_first_response(stub: Any) -> None:
    talk = Talk(stub.Duplex)
    talk.send(StreamRequest(payload=bytes(UPLOADS[0]), response_bytes=[DOWNLOADS[0]]))
    assert len(next(talk.call).payload) == DOWNLOADS[0]
    talk.call.cancel()
    talk.end()
    with pytest.raises(grpc.RpcError):
        next(talk.call)
    assert talk.call.code() is Status.CANCELLED


def test_timeout_on_sleeping_server(stub: Any) -> None:
    talk = Talk(stub.Duplex, timeout=0.1)
    talk.send(StreamRequest(payload=bytes(UPLOADS[0]), response_bytes=[1], pause_s=30))
    with pytest.raises(grpc.RpcError):
        next(talk.call)
    talk.end()
    assert talk.call.code() is Status.DEADLINE_EXCEEDED


def test_custom_metadata(stub: Any) -> None:
    metadata = (INITIAL, TRAILING)
    _, unary = stub.Unary.with_call(Request(response_bytes=1), metadata=metadata, timeout=TIMEOUT_S)
    duplex = stub.Duplex(iter([StreamRequest(response_bytes=[1])]), metadata=metadata, timeout=TIMEOUT_S)
    assert len(list(duplex)) == 1
    for call in (unary, duplex):
        assert dict(call.initial_metadata())[INITIAL[0]] == INITIAL[1]
        assert dict(call.trailing_metadata())[TRAILING[0]] == TRAILING[1]


@pytest.mark.parametrize("status", [PLAIN_STATUS, SPECIAL_STATUS], ids=["plain", "special"])
def test_status_code_and_message(stub: Any, status: Any) -> None:
    """The second is the case special_status_message."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Unary(Request(status=status), timeout=TIMEOUT_S)
    duplex = stub.Duplex(iter([StreamRequest(status=status)]), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError):
        next(duplex)
    for call in (caught.value, duplex):
        assert (call.code(), call.details()) == (Status.UNKNOWN, status.message)  # type: ignore[attr-defined]


def test_unimplemented_method(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Unwritten(Nothing(), timeout=TIMEOUT_S)
    assert caught.value.code() is Status.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_unimplemented_service(deployed: None, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        interop_pb2_grpc.AbsentStub(channel).Empty(Nothing(), timeout=TIMEOUT_S)
    assert caught.value.code() is Status.UNIMPLEMENTED  # type: ignore[attr-defined]


@pytest.fixture
def counted(deployed: None, gateway: Gateway) -> Iterator[tuple[Any, Any]]:
    """A stub, and what has passed on its connection."""
    with counting(gateway.grpc_port) as passed, grpc.insecure_channel(f"127.0.0.1:{passed.port}") as channel:
        yield interop_pb2_grpc.InteropStub(channel), passed


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_client_compressed_unary(counted: tuple[Any, Any], name: str) -> None:
    stub, passed = counted
    request = Request(payload=bytes(LARGE_REQUEST), response_bytes=5)
    assert len(stub.Unary(request, compression=COMPRESSIONS[name], timeout=TIMEOUT_S).payload) == 5
    assert passed.to_server < LARGE_REQUEST / 10
    assert len(stub.Unary(request, timeout=TIMEOUT_S).payload) == 5
    assert passed.to_server > LARGE_REQUEST


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_client_compressed_streaming(counted: tuple[Any, Any], name: str) -> None:
    stub, passed = counted
    requests = (Request(payload=bytes(size)) for size in UPLOADS)
    assert stub.Inputs(requests, compression=COMPRESSIONS[name], timeout=TIMEOUT_S).payload_bytes == 74_922
    assert passed.to_server < 74_922 / 10


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_server_compressed_unary(counted: tuple[Any, Any], name: str) -> None:
    stub, passed = counted
    request = Request(response_bytes=LARGE_RESPONSE, compression=name)
    assert stub.Unary(request, timeout=TIMEOUT_S).payload == bytes(LARGE_RESPONSE)
    assert passed.to_client < LARGE_RESPONSE / 10


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_server_compressed_streaming(counted: tuple[Any, Any], name: str) -> None:
    stub, passed = counted
    responses = stub.Outputs(StreamRequest(response_bytes=DOWNLOADS, compression=name), timeout=TIMEOUT_S)
    assert [len(response.payload) for response in responses] == list(DOWNLOADS)
    assert passed.to_client < sum(DOWNLOADS) / 10
