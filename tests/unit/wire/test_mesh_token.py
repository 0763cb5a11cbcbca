"""mesh.wire.mesh_token: a port of the mesh serves peers that have the token, and reads nothing of others."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from mesh.cluster import ray_core
from mesh.wire import mesh_token
from mesh.wire.endpoints import open_channel, start_server
from mesh.wire.mesh_token import TOKEN_METADATA, TokenGuard

SECRET = b"secret"
UNARY = "/shop.Test/Echo"
STREAM = "/shop.Test/Echoes"


class Service(grpc.GenericRpcHandler):
    """Echoes, and counts the messages that were read."""

    def __init__(self) -> None:
        self.read = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> object:
        if handler_call_details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(self._echo, request_deserializer=self._count)
        return grpc.stream_stream_rpc_method_handler(self._echoes, request_deserializer=self._count)

    def _count(self, data: bytes) -> bytes:
        self.read += 1
        return data

    async def _echo(self, request: bytes, context: object) -> bytes:
        return request

    async def _echoes(self, requests: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        while isinstance(message := await context.read(), bytes):
            await context.write(message)


async def call(service: Service, method: str, metadata: tuple[tuple[str, bytes], ...]) -> bytes:
    server, port = await start_server([TokenGuard(service)], "127.0.0.1")
    try:
        async with asyncio.timeout(30), open_channel(f"127.0.0.1:{port}") as channel:
            if method == UNARY:
                return bytes(await channel.unary_unary(method)(b"x" * 100_000, metadata=metadata))
            stream = channel.stream_stream(method)(metadata=metadata)
            with contextlib.suppress(asyncio.InvalidStateError):  # refused before it was written
                await stream.write(b"x" * 100_000)
            answer = await stream.read()
            if not isinstance(answer, bytes):
                await stream  # raises the status
            await stream.done_writing()
            return bytes(answer)
    finally:
        await server.stop(0)


@pytest.fixture(autouse=True)
def _known_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_token, "_token", SECRET)


@pytest.mark.parametrize("method", [UNARY, STREAM])
def test_who_has_the_token_is_served(method: str) -> None:
    service = Service()
    assert asyncio.run(call(service, method, ((TOKEN_METADATA, SECRET),))) == b"x" * 100_000
    assert service.read == 1


@pytest.mark.parametrize(
    "metadata", [(), ((TOKEN_METADATA, b"guess"),), ((TOKEN_METADATA, b""),), (("other-bin", SECRET),)]
)
@pytest.mark.parametrize("method", [UNARY, STREAM])
def test_other_callers_are_refused_unread(method: str, metadata: tuple[tuple[str, bytes], ...]) -> None:
    service = Service()
    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            asyncio.run(call(service, method, metadata))
        # A client whose message meets the refusal on its way loses the status: then it has to ask again.
        if caught.value.code() is not grpc.StatusCode.INTERNAL:
            break
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "use a gateway" in (caught.value.details() or "")
    assert service.read == 0


def test_the_old_token_is_used_until_the_new_one_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port never waits for the cluster's KV, also while that is away."""

    def kv_get(key: str) -> bytes:
        assert mesh_token.token_matches(SECRET)
        return b"new"

    monkeypatch.setattr(ray_core, "kv_get", kv_get)
    assert mesh_token.renew_token() == b"new"
    assert mesh_token.token_matches(b"new")
    assert not mesh_token.token_matches(SECRET)


def test_a_token_that_cannot_be_read_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_core, "kv_get", lambda key: None)
    with pytest.raises(LookupError, match="no mesh"):
        mesh_token.renew_token()
    assert mesh_token.mesh_token() == SECRET


def test_a_process_without_a_token_lets_no_one_in_and_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    monkeypatch.setattr(ray_core, "kv_get", reads.append)
    mesh_token.forget_token()
    assert not mesh_token.token_matches(SECRET)
    assert not mesh_token.token_matches(b"")
    assert not reads
