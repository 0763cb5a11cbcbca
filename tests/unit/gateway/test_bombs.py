"""Small messages that decompress to huge ones, on real sockets, in every dialect: refused, and memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from weakref import WeakMethod

import grpc
import pytest

from gateway.dialects.compression import TURN_BYTES, DecompressionTurns
from gateway.web_rpc.envelope_reader import envelope
from mesh.http2.frame_format import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, frame_header, settings_frame
from mesh.http2.hpack_encoder import encode_fields
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed, decompressed
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.memory_peak import memory_peak
from tests.unit.fakes.rpc_ends import RAW_REQUEST, RawCall, raw_call, raw_connection
from tests.unit.fakes.shop_routes import PRICE, TOTAL, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, finish, on_io_loop, until
from tests.unit.gateway.raw_requests import CONNECT, CONNECT_STREAM, GRPC_WEB, JSON, LINES, answer_to, post

pytestmark = pytest.mark.usefixtures("eager_upkeep")

MIB = 1024 * 1024


BOMB_BYTES = 64 * MIB
LIMIT_BYTES = 1 * MIB
SIZE = 4 * MIB


def bomb(window_bits: int, size: int = BOMB_BYTES) -> bytes:
    """About a thousandth of the zeros that come out of it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(size // MIB)), packer.flush()])


GZIP, DEFLATE = bomb(31), bomb(15)
BOMBS = {
    "Connect": (post(PRICE, GZIP, CONNECT, "content-encoding: gzip"), 429, b"resource_exhausted"),
    "Connect, deflate": (post(PRICE, DEFLATE, CONNECT, "content-encoding: deflate"), 429, b"resource_exhausted"),
    "Connect, br": (post(PRICE, GZIP, CONNECT, "content-encoding: br"), 501, b"unimplemented"),
    "Connect of JSON": (
        post(PRICE, GZIP, JSON, "connect-protocol-version: 1", "content-encoding: gzip"),
        429,
        b"resource_exhausted",
    ),
    "stream of Connect": (
        post(TOTAL, envelope(GZIP, 1), CONNECT_STREAM, "connect-content-encoding: gzip"),
        200,
        b"resource_exhausted",
    ),
    "gRPC-Web": (post(PRICE, envelope(GZIP, 1), GRPC_WEB, "grpc-encoding: gzip"), 200, b"grpc-status:8"),
    "JSON": (post(PRICE, GZIP, JSON, "content-encoding: gzip"), 413, b"once it is decompressed"),
    "JSON, deflate": (post(PRICE, DEFLATE, JSON, "content-encoding: deflate"), 415, b"send gzip"),
    "JSON, br": (post(PRICE, GZIP, JSON, "content-encoding: br"), 415, b"send gzip"),
    "JSON, twice": (post(PRICE, GZIP, JSON, "content-encoding: gzip, gzip"), 415, b"send gzip"),
    "array of JSON": (post(TOTAL, GZIP, JSON, "content-encoding: gzip"), 413, b"once it is decompressed"),
    "lines of JSON": (post(TOTAL, GZIP, LINES, "content-encoding: gzip"), 415, b"send them as they are"),
}


def set_small_limits(patch: pytest.MonkeyPatch) -> None:
    """Of what may come out of a compressed message."""
    known = settings()
    limits = replace(known.gateway, decompressed_max_bytes=LIMIT_BYTES, json_max_bytes=LIMIT_BYTES)
    patch.setattr("gateway.dialects.served_method.settings", lambda: replace(known, gateway=limits))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(alone: ProcessPoolExecutor, name: str) -> None:
    _, status, text = BOMBS[name]
    answered, body, peak_bytes = alone.submit(bombed, name).result(60)
    assert answered == status
    assert text in body
    assert peak_bytes < 6 * LIMIT_BYTES


def bombed(name: str) -> tuple[int, bytes, int]:
    """Status and body of the answer to a bomb, and what memory it has taken."""
    router = FakeRouter(lambda call: allow(call, 100))

    async def scenario() -> tuple[int, bytes, int]:
        async with every_dialect(router) as gateway:
            with memory_peak() as peak:
                answered, body = await answer_to(gateway, BOMBS[name][0])
            assert gateway.listener.buffered_bytes == 0
            assert router.link.items == []
            return answered, body, peak.bytes

    with pytest.MonkeyPatch.context() as patch:
        set_small_limits(patch)
        return on_io_loop(scenario())


def test_a_bomb_of_grpc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_small_limits(monkeypatch)

    async def scenario() -> None:
        async with every_dialect(FakeRouter()) as gateway:
            address = f"127.0.0.1:{gateway.port}"
            async with grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(PRICE)(bytes(BOMB_BYTES))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    on_io_loop(scenario())


LARGE_BYTES = LIMIT_BYTES - 1_000


def streamed(*sizes: int) -> tuple[bytes, list[int]]:
    """The status of a gRPC call whose compressed messages, of these sizes, all come in one read; what passed on."""
    router = FakeRouter(lambda call: allow(call, 10_000))
    router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"")))
    body = b"".join(envelope(compressed(bytes(size), "gzip"), 1) for size in sizes)

    async def scenario() -> bytes:
        async with every_dialect(router) as gateway:
            address, field = f"127.0.0.1:{gateway.port}", (b"grpc-encoding", b"gzip")
            answer = await raw_call(address, field, body=body, path=TOTAL.encode())
            await until(lambda: gateway.listener.buffered_bytes == 0, "nothing waits any more")
            return answer.heads[-1][b"grpc-status"]

    return on_io_loop(scenario()), [len(each) for each in router.link.items]


def test_each_message_of_a_grpc_stream_may_be_as_large_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them one read brings: in Connect it is the same."""
    set_small_limits(monkeypatch)
    assert streamed(*[LARGE_BYTES] * 5, 0, 1) == (b"0", [*[LARGE_BYTES] * 5, 0, 1])


def test_a_bomb_in_a_grpc_stream_is_refused_behind_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    set_small_limits(monkeypatch)
    assert streamed(LARGE_BYTES, LIMIT_BYTES + 1, 1) == (b"8", [LARGE_BYTES])


JSON_TEXT = b'{"name":"' + b"x" * MIB + b'"}'
TURN_KINDS: dict[str, tuple[bytes, dict[bytes, str]]] = {
    "gRPC": (envelope(bomb(31, MIB), 1), {b"grpc-encoding": "gzip"}),
    "gRPC-Web": (envelope(bomb(31, MIB), 1), {b"content-type": GRPC_WEB, b"grpc-encoding": "gzip"}),
    "Connect": (bomb(31, MIB), {b"content-type": CONNECT, b"content-encoding": "gzip"}),
    "JSON": (compressed(JSON_TEXT, "gzip"), {b"content-type": JSON, b"content-encoding": "gzip"}),
    "array of JSON": (
        compressed(JSON_TEXT[:-10_000] + b'"}', "gzip"),
        {b":path": TOTAL, b"content-type": JSON, b"content-encoding": "gzip"},
    ),
}


@pytest.mark.parametrize("kind", TURN_KINDS)
def test_calls_that_come_together_are_decompressed_in_turns_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Other calls go on meanwhile, and so does the rest of what the bombs have been made into."""
    bytes_of_turns, calls = [0], 40
    body, own_fields = TURN_KINDS[kind]

    def counted(message: bytes, encoding: str, max_bytes: int) -> bytes:
        plain = decompressed(message, encoding, max_bytes)
        bytes_of_turns[-1] += len(plain)
        return plain

    def answer(call: OutgoingCall) -> None:
        if call.request.payload is None:
            allow(call, 10_000)
        else:
            finish(call, Outcome(payload=raw(b"")))

    async def scenario() -> None:
        fields = {**dict(RAW_REQUEST), b":path": PRICE.encode()}
        fields |= {name: value.encode() for name, value in own_fields.items()}
        head = encode_fields(list(fields.items()))
        frames = [
            frame_header(len(head), HEADERS, END_HEADERS, number) + head + data
            for number in range(1, 2 * calls, 2)
            for data in [frame_header(len(body), DATA, END_STREAM, number) + body]
        ]
        router = FakeRouter(answer)
        router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"")))
        async with every_dialect(router) as gateway, asyncio.timeout(60):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"".join([PREFACE, settings_frame({}), *frames]))
            while sum(bytes_of_turns) < 39 * MIB:
                await asyncio.sleep(0)
                bytes_of_turns.append(0)
            writer.close()

    monkeypatch.setattr("gateway.dialects.compression.decompressed", counted)
    on_io_loop(scenario())
    # A turn of the test may lie between two of the loop, and the last message of each may exceed what it has.
    assert 0 < max(bytes_of_turns) <= 2 * (TURN_BYTES + MIB)


@pytest.mark.parametrize("kind", TURN_KINDS)
def test_nothing_is_kept_of_a_call_whose_client_leaves_while_it_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """None of it counts any more, and its turn may come after many seconds."""
    waiting: list[WeakMethod[Callable[[], bool]]] = []
    monkeypatch.setattr(DecompressionTurns, "has_room", False)
    monkeypatch.setattr(DecompressionTurns, "wait", lambda turns, share, resume: waiting.append(WeakMethod(resume)))
    body, own_fields = TURN_KINDS[kind]
    router = FakeRouter(lambda call: allow(call, 100))

    async def scenario() -> None:
        async with every_dialect(router) as gateway, raw_connection(f"127.0.0.1:{gateway.port}") as connection:
            fields = {**dict(RAW_REQUEST), b":path": PRICE.encode()}
            fields |= {name: value.encode() for name, value in own_fields.items()}
            stream = connection.open(encode_fields(list(fields.items())), RawCall())
            connection.outbox.send_data(stream, body)
            connection.outbox.end(stream)
            await until(lambda: waiting, "the request is here")
            assert waiting[0]() is not None
            connection.reset(stream)
            await until(lambda: waiting[0]() is None, "the call is gone")
            assert gateway.listener.buffered_bytes == 0

    gc.disable()
    try:
        on_io_loop(scenario())
    finally:
        gc.enable()
    assert len(waiting) == 1


def streamed_by_connect(sizes: list[int]) -> list[int]:
    """What passed on of a Connect stream with compressed messages of these sizes, which has no credit at first."""
    router = FakeRouter()
    router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"")))
    body = b"".join(envelope(compressed(bytes(size), "gzip"), 1) for size in sizes)

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            request = post(TOTAL, body, CONNECT_STREAM, "connect-content-encoding: gzip")
            answered = asyncio.create_task(answer_to(gateway, request))
            await until(lambda: router.calls, "the call")
            allow(router.calls[0], 10_000)
            await answered
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())
    return [len(each) for each in router.link.items]


def test_a_stream_of_connect_goes_on_turn_by_turn_to_its_end() -> None:
    sizes = [MIB] * 13 + [0, 1]
    assert streamed_by_connect(sizes) == sizes


def test_a_call_that_waits_to_be_decompressed_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter()
    waiting: list[Callable[[], bool]] = []
    monkeypatch.setattr(DecompressionTurns, "has_room", False)
    monkeypatch.setattr(DecompressionTurns, "wait", lambda turns, connection, resume: waiting.append(resume))

    async def scenario() -> None:
        async with every_dialect(router) as gateway, raw_connection(f"127.0.0.1:{gateway.port}") as connection:
            fields = {**dict(RAW_REQUEST), b":path": PRICE.encode(), b"grpc-encoding": b"gzip"}
            stream = connection.open(encode_fields(list(fields.items())), RawCall())
            connection.outbox.send_data(stream, envelope(compressed(bytes(MIB), "gzip"), 1))
            connection.outbox.end(stream)
            await until(lambda: waiting, "the request is here")
            connection.reset(stream)
            await gateway.listener.idle()
            assert not waiting[0]()
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())
    assert len(waiting) == 1
    assert router.calls == []


def test_bombs_are_decompressed_only_as_the_replica_takes_them(alone: ProcessPoolExecutor) -> None:
    """Each of them is within the limit; together they would be a gibibyte."""
    peak_bytes, items = alone.submit(bombed_by_many).result(60)
    assert peak_bytes < 5 * SIZE
    # The size of one takes the credit of many small messages.
    assert items == 1


def bombed_by_many() -> tuple[int, int]:
    """What memory they have taken, and how many the replica got."""
    router = FakeRouter(lambda call: allow(call, 2))
    body = envelope(bomb(31, SIZE), 1) * 256

    async def scenario() -> tuple[int, int]:
        async with every_dialect(router) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            with memory_peak() as peak:
                writer.write(post(TOTAL, body, CONNECT_STREAM, "connect-content-encoding: gzip"))
                await until(lambda: router.link.items, "the first bomb")
                await until(lambda: gateway.listener.buffered_bytes > 100_000, "the others wait")
            items = len(router.link.items)
            writer.transport.abort()
            await until(lambda: router.cancelled, "the call ends with its client")
            return peak.bytes, items

    return on_io_loop(scenario())
