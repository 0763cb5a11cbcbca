"""Requests that are not what they say: each has an answer with the right status."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_fields
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
from tests.unit.fakes.rpc_ends import (
    RAW_REQUEST,
    AsyncShop,
    RawCall,
    our_server,
    raw_call,
    raw_connection,
    scenario,
    until,
)

MESSAGE = b"\0\0\0\0\0"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", b"Price"),
        (MESSAGE + MESSAGE, b"Price"),
        (b"\0\0\0\0\5abc", b"Price"),
        (MESSAGE + b"\0\0", b"Total"),
        (b"\7" + MESSAGE, b"Total"),
        (b"\0\0\0\0\2\xff\xff", b"Price"),
    ],
    ids=["none", "two", "half", "half of a second", "no message", "no protobuf"],
)
def test_bodies_that_are_wrong_are_internal(body: bytes, path: bytes) -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address):
            answer = await raw_call(address, body=body, path=b"/mesh.tests.Shop/" + path)
            assert answer.heads[-1][b"grpc-status"] == b"13"

    scenario(talk())


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ((b":method", b"GET"), (b":status", b"405")),
        ((b"content-type", b"text/plain"), (b":status", b"415")),
        ((b"grpc-timeout", b"soon"), (b"grpc-status", b"3")),
        ((b"x-bin", b"!"), (b"grpc-status", b"3")),
        ((b"x", b"y" * 20_000), (b"grpc-status", b"8")),
        ((b":path", b"/mesh.tests.Shop/Nothing"), (b"grpc-status", b"12")),
        ((b":path", b"*"), (b"grpc-status", b"12")),
    ],
)
def test_heads_that_are_wrong_have_an_answer(field: tuple[bytes, bytes], expected: tuple[bytes, bytes]) -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address):
            answer = await raw_call(address, field, body=MESSAGE)
            assert answer.heads[-1][expected[0]] == expected[1]
            assert not answer.body

    scenario(talk())


def test_malformed_requests_are_reset() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address):
            for field in [
                (b"connection", b"close"),
                (b":path", b""),
                (b"content-length", b"x"),
                (b"content-length", b"9"),
            ]:
                assert (await raw_call(address, field, body=MESSAGE)).reset_code == ErrorCode.PROTOCOL_ERROR

    scenario(talk())


MALFORMED_TRAILERS = pytest.mark.parametrize(
    "field", [(b":path", b"/other"), (b":status", b"200"), (b"Upper", b"x"), (b"connection", b"close"), (b"x", b"a\nb")]
)


@MALFORMED_TRAILERS
def test_requests_with_malformed_trailers_are_reset(field: tuple[bytes, bytes]) -> None:
    """RFC 9113 §8.1. Trailers that are well-formed mean nothing in gRPC."""

    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address), raw_connection(address) as connection:
            wrong, fine = RawCall(), RawCall()
            for call, trailers in ((wrong, field), (fine, (b"x", b"y"))):
                path = (b":path", b"/mesh.tests.Shop/Price")
                request = [path if name == b":path" else (name, value) for name, value in RAW_REQUEST]
                stream = connection.open(encode_fields(request), call)
                connection.outbox.send_data(stream, MESSAGE)
                connection.outbox.end(stream, encode_fields([trailers]))
            await until(lambda: wrong.has_ended and fine.has_ended, "both answers")
            assert wrong.reset_code == ErrorCode.PROTOCOL_ERROR
            assert fine.heads[-1][b"grpc-status"] == b"0"

    scenario(talk())


def test_a_request_that_cannot_be_accepted_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        def accept(stream: Any, head: Any, peer: str) -> Any:
            raise RuntimeError("a bug")

        server = RpcServer(read_request_head, accept)
        port = await server.listen("127.0.0.1", 0)
        answer = await raw_call(f"localhost:{port}", body=MESSAGE)
        assert answer.heads[-1][b"grpc-status"] == b"13"
        await server.stop(1)

    scenario(talk())
    assert len(caplog.records) == 1
