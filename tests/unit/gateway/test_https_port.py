"""One port with TLS: HTTP/1.1, HTTP/2 and gRPC, as ALPN or the first bytes say."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from mesh.tls.tls_context import server_context
from tests.unit.fakes.certificates import Pki
from tests.unit.fakes.client_programs import curl
from tests.unit.fakes.http1_ends import answers, request
from tests.unit.gateway.fakes import UNARY, FakeRouter, Gateway, echo, on_io_loop, routes_of, until
from tests.unit.gateway.open_ports import Pages, hello


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("certs"))


@asynccontextmanager
async def secured(pki: Pki, pages: Pages) -> AsyncIterator[Gateway]:
    gateway = Gateway(FakeRouter(echo))
    gateway.listener.set_routes(routes_of("shop"))
    gateway.listener.add_dialects(pages)
    tls = server_context(pki.files(pki.server()), ("h2", "http/1.1")).context
    gateway.port = await gateway.listener.start("127.0.0.1", 0, tls=lambda: tls)
    try:
        yield gateway
        await until(lambda: not gateway.listener.connections, "all connections are gone")
    finally:
        gateway.health.close()
        await gateway.listener.stop(0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl_speaks_both_versions_of_http(pki: Pki, flag: str, version: str) -> None:
    async def scenario() -> None:
        async with secured(pki, Pages(hello)) as gateway:
            url = f"https://localhost:{gateway.port}/a?b"
            asked = [flag, "--cacert", pki.ca_certs, "-w", " %{http_version}", url]
            answer = (await asyncio.to_thread(curl, *asked)).decode()
            assert answer == f"GET /a b https localhost:{gateway.port} {version}"

    on_io_loop(scenario())


def test_grpc_and_a_client_without_alpn(pki: Pki) -> None:
    async def scenario() -> None:
        async with secured(pki, Pages(hello)) as gateway:
            address = f"localhost:{gateway.port}"
            async with grpc.aio.secure_channel(address, pki.credentials()) as channel:
                assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            context = pki.client_context()
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
            writer.write(request("GET / HTTP/1.1", "connection: close"))
            assert answers(await reader.read())[0][0] == 200
            writer.close()

    on_io_loop(scenario())


def test_an_early_answer_to_a_large_upload_reaches_its_client(pki: Pki) -> None:
    """TLS cannot close one side of the socket, so the other side is read until the client has had its answer."""

    async def scenario() -> None:
        async with secured(pki, Pages(lambda exchange: exchange.send_whole(413, [], b"too large") and None)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=pki.client_context())
            writer.write(request("POST / HTTP/1.1", "content-length: 100000000"))
            for _ in range(20):
                writer.write(bytes(100_000))
                await asyncio.wait_for(writer.drain(), 30)
            head = await asyncio.wait_for(reader.readuntil(b"too large"), 30)
            assert answers(head)[0][0] == 413
            writer.close()

    on_io_loop(scenario())


def test_a_client_that_speaks_plain_text_gets_nothing(pki: Pki) -> None:
    async def scenario() -> None:
        pages = Pages()
        async with secured(pki, pages) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request())
            assert b"HTTP" not in await asyncio.wait_for(reader.read(), 15)
            assert not pages.keepers
            writer.close()

    on_io_loop(scenario())
