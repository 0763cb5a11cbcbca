"""gRPC calls through the gateway, made by a stock grpc.aio client over a real socket; the mesh behind is a fake."""

from __future__ import annotations

import uuid
from functools import partial

import grpc
import grpc.aio
import pytest

from gateway.requests.routes import read_routes
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.rpc_ends import raw_call
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    IDEMPOTENT,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    allow,
    echo,
    finish,
    item,
    on_io_loop,
    route_table,
    serving,
    until,
)

# ---- The four arities ------------------------------------------------------------------------------------------------


def test_unary_bytes_pass_untouched():
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway:
            data = bytes(range(256)) * 5000
            assert await gateway.channel.unary_unary(UNARY)(data, timeout=10) == data
        (call,) = router.calls
        assert call.request.method == UNARY
        assert not router.cancelled

    on_io_loop(scenario())


def test_calls_of_idempotent_methods_may_be_sent_again():
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway:
            for method in (UNARY, IDEMPOTENT):
                await gateway.channel.unary_unary(method)(b"x", timeout=10)
        assert [call.request.is_idempotent for call in router.calls] == [False, True]

    on_io_loop(scenario())


def test_a_message_may_name_the_model():
    """Where the method says so, and the metadata names none (item 124)."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router) as gateway:
            table = route_table("shop")
            table.routes[0].grpc_methods[0].model_id_fields.extend((1, 2))
            gateway.listener.set_routes(read_routes(table))
            named = table.routes[0].grpc_methods[0].full_name
            other = next(each for each in (UNARY, IDEMPOTENT) if each != named)
            for method, metadata in ((named, ()), (named, (("multiplexed_model_id", "x"),)), (other, ())):
                await gateway.channel.unary_unary(method)(b"\x0a\x01m\x12\x017", metadata=metadata, timeout=10)
        assert [call.request.context.multiplexed_model_id for call in router.calls] == ["m:7", "x", ""]

    on_io_loop(scenario())


def test_server_stream_delivers_every_item_in_order_then_the_status():
    def produce(call: OutgoingCall) -> None:
        for number in range(100):
            item(call, b"%d" % number)
        finish(call, Outcome(trailers=(("count", b"100"),)))

    async def scenario() -> None:
        async with serving(FakeRouter(produce), "shop") as gateway:
            stream = gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=10)
            assert [message async for message in stream] == [b"%d" % number for number in range(100)]
            assert ("count", "100") in list(await stream.trailing_metadata())

    on_io_loop(scenario())


def test_client_stream_sends_every_item_then_half_closes():
    router = FakeRouter(partial(allow, items=1000))
    router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"".join(router.link.items))))

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            requests = [b"a", b"b", b"c"]
            assert await gateway.channel.stream_unary(CLIENT_STREAM)(iter(requests), timeout=10) == b"abc"
        assert router.link.half_closed == 1

    on_io_loop(scenario())


def test_bidi_responds_while_requests_arrive():
    router = FakeRouter(partial(allow, items=1000))
    router.link.on_item = lambda call, data: item(call, data.upper())
    router.link.on_half_close = lambda call: finish(call, Outcome())

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.stream_stream(BIDI)(timeout=10)
            for data in (b"a", b"b"):
                await stream.write(data)
                assert await stream.read() == data.upper()
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_a_stream_may_end_before_the_client_has_sent_everything():
    router = FakeRouter(partial(allow, items=1000))
    router.link.on_item = lambda call, data: finish(call, Outcome(code=9, message="enough"))

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.stream_stream(BIDI)(timeout=10)
            await stream.write(b"a")
            assert await stream.code() is grpc.StatusCode.FAILED_PRECONDITION
            await gateway.idle()
        assert router.link.half_closed == 0

    on_io_loop(scenario())


# ---- Flow control ----------------------------------------------------------------------------------------------------


def test_the_end_of_an_empty_request_waits_until_a_replica_has_accepted_the_call():
    router = FakeRouter()

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.stream_unary(CLIENT_STREAM)(timeout=10)
            await stream.done_writing()
            await until(lambda: router.calls, "the call")
            # The round trip of another call shows that the end has arrived as well.
            router.answer = echo
            await gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            assert router.link.half_closed == 0
            allow(router.calls[0], 2)
            assert router.link.half_closed == 1
            finish(router.calls[0], Outcome(payload=raw(b"sum")))
            assert await stream == b"sum"

    on_io_loop(scenario())


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM])
@pytest.mark.parametrize("messages", [0, 2])
def test_another_number_of_requests_than_one_is_unimplemented(method: str, messages: int):
    """As the Connect conformance suite "gRPC Unexpected Requests" has it."""

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            answer = await raw_call(f"localhost:{gateway.port}", body=b"\0\0\0\0\0" * messages, path=method.encode())
            assert answer.heads[-1][b"grpc-status"] == b"12"
            await gateway.idle()

    on_io_loop(scenario())


@pytest.mark.parametrize("method", [UNARY, CLIENT_STREAM])
def test_a_message_that_cannot_be_decompressed_is_internal(method: str) -> None:
    """As gRPC says of an encoding that the server has. Connect says `invalid_argument`."""

    async def scenario() -> None:
        router = FakeRouter(partial(allow, items=2))
        async with serving(router, "shop") as gateway:
            address, encoding = f"localhost:{gateway.port}", (b"grpc-encoding", b"gzip")
            answer = await raw_call(address, encoding, body=b"\1\0\0\0\3abc", path=method.encode())
            assert answer.heads[-1][b"grpc-status"] == b"13"
            assert not router.link.items

    on_io_loop(scenario())


def test_request_messages_are_not_read_before_the_replica_has_granted_credit():
    router = FakeRouter(partial(allow, items=2))

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.stream_unary(CLIENT_STREAM)(timeout=10)
            for number in range(5):
                await stream.write(b"%d" % number)
            await until(lambda: len(router.link.items) == 2, "the granted items")
            # After the round trip of another call, a message that was not held back would have arrived.
            router.answer = echo
            await gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            assert len(router.link.items) == 2
            allow(router.calls[0], 2)
            await until(lambda: len(router.link.items) == 4, "the items granted later")
            stream.cancel()

    on_io_loop(scenario())


def test_response_items_are_granted_again_only_as_they_are_written():
    items = 32
    big = b"x" * 1_000_000
    credits = items * raw(big).credits

    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=10)
            await until(lambda: router.calls, "the call")
            (call,) = router.calls
            assert call.request.streams_response
            for _ in range(items):
                item(call, big)
            # The client reads nothing: HTTP/2 buffers a few messages, the others get no credit.
            await until(
                lambda: gateway.sample("grpc_server_msg_sent_total", "server_stream", "shop.Store", "List"), "one"
            )
            assert sum(router.link.granted) < credits / 2
            for _ in range(items):
                await stream.read()
            await until(lambda: sum(router.link.granted) == credits, "credit for all that was read")
            finish(call, Outcome())
            assert await stream.read() is grpc.aio.EOF

    on_io_loop(scenario())


# ---- Metadata --------------------------------------------------------------------------------------------------------


def test_context_and_metadata_reach_the_call():
    """Keys of the mesh are read, all others passed on (items 206, 214)."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop", "other") as gateway:
            metadata = (
                ("application", "shop"),
                ("request_id", "r-7"),
                ("multiplexed_model_id", "m-1"),
                ("session_id", "s-1"),
                ("tenant", "acme"),
                ("traceparent", "00-1-2-01"),
                ("blob-bin", b"\x00\xff"),
            )
            call = gateway.channel.unary_unary(UNARY)(b"", metadata=metadata, timeout=10)
            await call
            assert ("request_id", "r-7") in list(await call.trailing_metadata())
        context = router.calls[0].request.context
        assert (context.app, context.route, context.request_id) == ("shop", UNARY, "r-7")
        assert (context.multiplexed_model_id, context.traceparent) == ("m-1", "00-1-2-01")
        assert (router.calls[0].request.session_id, context.tenant) == ("s-1", "acme")
        assert ("blob-bin", b"\x00\xff") in list(router.calls[0].request.metadata)
        assert router.calls[0].request.peer.startswith("ipv4:127.0.0.1:")
        assert router.calls[0].request.source == router.calls[0].request.peer, "connections take turns in the queue"

    on_io_loop(scenario())


def test_a_request_id_is_made_up_and_returned():
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            await call
            returned = dict(list(await call.trailing_metadata()))["request_id"]
        assert uuid.UUID(returned).version == 4
        assert router.calls[0].request.context.request_id == returned

    on_io_loop(scenario())
