"""Compressed requests and responses, and what cannot be read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from mesh.rpc.message_reader import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    CompressedMessage,
    MessageError,
    MessageReader,
    decompressed,
)
from tests.unit.fakes.rpc_ends import (
    AsyncShop,
    Item,
    ThreadShop,
    open_channel,
    our_server,
    raw_call,
    scenario,
    stock_server,
)
from tests.unit.protos import shop_pb2_grpc

TEXT = "text that repeats " * 5_000


class AsyncPacker(AsyncShop):
    """Compresses its responses."""

    def __init__(self, compression: grpc.Compression) -> None:
        super().__init__()
        self._compression = compression

    async def Price(self, request: Any, context: Any) -> Any:
        context.set_compression(self._compression)
        return Item(name=TEXT, amount=len(request.name))

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        context.set_compression(self._compression)
        await context.send_initial_metadata((("first", "1"),))
        for number in range(request.amount):
            yield Item(name=TEXT, amount=number)


class ThreadPacker(ThreadShop):
    """The same as plain functions."""

    def __init__(self, compression: grpc.Compression) -> None:
        super().__init__()
        self._compression = compression

    def Price(self, request: Any, context: Any) -> Any:
        context.set_compression(self._compression)
        return Item(name=TEXT, amount=len(request.name))

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        context.set_compression(self._compression)
        context.send_initial_metadata((("first", "1"),))
        for number in range(request.amount):
            yield Item(name=TEXT, amount=number)


@asynccontextmanager
async def counted(servicer: Any) -> AsyncIterator[tuple[str, list[int]]]:
    """The address of our server, and the sizes of what it reads."""
    async with our_server(servicer) as (ours, address):
        sizes: list[int] = []
        accept = ours.server._requests._accept

        def count(stream: Any, head: Any, peer: str) -> Any:
            receiver = accept(stream, head, peer)
            on_data = receiver.on_data
            receiver.on_data = lambda stream, data, start, stop: (
                sizes.append(stop - start) or on_data(stream, data, start, stop)
            )
            return receiver

        ours.server._requests._accept = count  # type: ignore[method-assign]
        yield address, sizes


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("servicer", [AsyncShop, ThreadShop])
def test_requests_that_a_stock_client_compresses(servicer: Any, compression: grpc.Compression) -> None:
    async def requests() -> AsyncIterator[Any]:
        for number in range(10):
            yield Item(name=TEXT, amount=number)

    async def talk() -> None:
        async with (
            counted(servicer()) as (address, sizes),
            open_channel("aio", address, compression=compression) as channel,
        ):
            shop = shop_pb2_grpc.ShopStub(channel)
            assert (await shop.Price(Item(name=TEXT), timeout=10)).amount == len(TEXT)
            assert (await shop.Total(requests(), timeout=10)).amount == 45
            assert sum(sizes) < len(TEXT)

    scenario(talk())


@pytest.mark.parametrize(
    "compression", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression]
)
@pytest.mark.parametrize(("client", "server"), [("aio", "ours"), ("ours", "ours"), ("ours", "stock")])
@pytest.mark.parametrize("servicer", [AsyncPacker, ThreadPacker])
def test_responses_that_a_servicer_compresses(
    client: str, server: str, servicer: Any, compression: grpc.Compression
) -> None:
    async def talk() -> None:
        serve = our_server if server == "ours" else stock_server
        async with serve(servicer(compression)) as (_, address), open_channel(client, address) as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            answer = await shop.Price(Item(name="abc"), timeout=10)
            assert (answer.name, answer.amount) == (TEXT, 3)
            listing = shop.List(Item(amount=20), timeout=10)
            assert dict(list(await listing.initial_metadata()))["first"] == "1"
            assert [(each.name == TEXT, each.amount) async for each in listing] == [(True, each) for each in range(20)]

    scenario(talk())


@pytest.mark.parametrize("servicer", [AsyncPacker, ThreadPacker])
def test_responses_are_only_compressed_for_clients_that_take_it(servicer: Any) -> None:
    async def talk() -> None:
        async with our_server(servicer(grpc.Compression.Gzip)) as (_, address):
            body = framed(Item(name="abc").SerializeToString(), flag=0)
            packed = await raw_call(address, (b"grpc-accept-encoding", b"identity,gzip"), body=body)
            plain = await raw_call(address, (b"grpc-accept-encoding", b"identity,deflate"), body=body)
            assert (packed.heads[0][b"grpc-encoding"], packed.body[0]) == (b"gzip", 1)
            assert Item.FromString(gzip.decompress(packed.body[5:])).name == TEXT
            assert (b"grpc-encoding" in plain.heads[0], plain.body[0]) == (False, 0)
            assert Item.FromString(bytes(plain.body[5:])).name == TEXT

    scenario(talk())


# ---- What cannot be read ---------------------------------------------------------------------------------------------


def framed(message: bytes, flag: int = 1) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (framed(b"x"), "", INTERNAL),
        (framed(b"x", flag=2), "gzip", INTERNAL),
        (framed(b"x"), "br", UNIMPLEMENTED),
        (framed(b"x"), "gzip", INTERNAL),
        (framed(b""), "gzip", INTERNAL),
        (framed(gzip.compress(b"x", mtime=0)[:-1]), "gzip", INTERNAL),
        (framed(gzip.compress(b"x", mtime=0) + b"more"), "gzip", INTERNAL),
        (framed(gzip.compress(b"x", mtime=0)), "deflate", INTERNAL),
        (framed(gzip.compress(bytes(10**7), mtime=0)), "gzip", RESOURCE_EXHAUSTED),
        (framed(zlib.compress(bytes(1_001))), "deflate", RESOURCE_EXHAUSTED),
        (framed(bytes(1_001), flag=0), "", RESOURCE_EXHAUSTED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_that_cannot_be_read(data: bytes, encoding: str, code: int) -> None:
    reader = MessageReader(100_000 if code == INTERNAL else 1_000, encoding)
    with pytest.raises(MessageError) as caught:
        reader.feed(data)
    assert caught.value.code == code


def test_both_encodings_are_read_up_to_the_limit() -> None:
    assert MessageReader(1_000, "gzip").feed(framed(gzip.compress(bytes(1_000)))) == [bytes(1_000)]
    assert MessageReader(1_000, "deflate").feed(framed(zlib.compress(bytes(1_000)))) == [bytes(1_000)]


def test_what_was_compressed_may_have_a_limit_of_its_own() -> None:
    """A message of 1 MB may become 1 GB, and takes the time of that."""
    reader = MessageReader(10_000, "gzip", keeps_compressed=True)
    plain, packed = reader.feed(framed(bytes(10_000), flag=0) + framed(gzip.compress(bytes(1_001))))
    assert plain == bytes(10_000)
    with pytest.raises(MessageError, match="without compression") as caught:
        decompressed(packed, "gzip", 1_000)
    assert caught.value.code == RESOURCE_EXHAUSTED


def test_a_server_says_which_encodings_it_takes() -> None:
    """With the status of a request whose encoding it does not know (gRPC docs, compression)."""

    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address):
            answer = await raw_call(address, (b"grpc-encoding", b"br"), body=framed(b"x"))
            assert answer.heads[0][b"grpc-status"] == b"12"
            assert answer.heads[0][b"grpc-accept-encoding"] == b"identity,deflate,gzip"

    scenario(talk())


def test_many_small_bombs_in_one_read_are_one_bomb() -> None:
    reader = MessageReader(1_000, "gzip")
    with pytest.raises(MessageError, match="once it was decompressed") as caught:
        reader.feed(framed(gzip.compress(bytes(600))) * 2)
    assert caught.value.code == RESOURCE_EXHAUSTED


def test_compressed_messages_may_be_kept_as_they_came() -> None:
    reader = MessageReader(500, "gzip", keeps_compressed=True)
    data = gzip.compress(bytes(600))
    first, second = reader.feed(framed(data) + framed(b"plain", flag=0))
    assert (type(first), type(second), second) == (CompressedMessage, bytes, b"plain")
    assert decompressed(first, "gzip", 600) == bytes(600)


def test_each_read_may_be_decompressed_to_as_much() -> None:
    reader = MessageReader(1_000, "gzip")
    assert [len(message) for _ in range(5) for message in reader.feed(framed(gzip.compress(bytes(600))))] == [600] * 5
