"""Stock clients of HTTP at a gateway's port: curl, httpx and Python's own."""

from __future__ import annotations

import asyncio
import http.client
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.requests.exchange import BrokenBy, Exchange
from tests.unit.fakes.client_programs import curl
from tests.unit.gateway.fakes import on_io_loop, until
from tests.unit.gateway.open_ports import Pages, open_gateway

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
LARGE = 20_000_000


class Mirror:
    """Sends the body back as it arrives, no faster than it is read."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._owed = 0
        exchange.send_head(200, [(b"x-method", exchange.head.method.encode())])

    def on_body(self, data: bytes) -> None:
        self._exchange.send_body(data)
        self._owed += len(data)
        self.on_writable()

    def on_writable(self) -> None:
        if not self._exchange.is_blocked:
            owed, self._owed = self._owed, 0
            self._exchange.give_room(owed)

    def on_end(self) -> None:
        self._exchange.end([(b"x-sum", b"1")])

    def on_broken(self, by: BrokenBy) -> None: ...


def at_a_gateway(talk: Any, opener: Any = Mirror) -> Any:
    """Run `talk(port)` in a thread while a gateway listens; returns what it returns."""

    async def scenario() -> Any:
        async with open_gateway(Pages(opener)) as gateway:
            result = await asyncio.to_thread(talk, gateway.port)
            await until(lambda: not gateway.listener.exchanges, "all exchanges have ended")
            assert gateway.listener.buffered_bytes == 0
            return result

    return on_io_loop(scenario())


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge"])
def test_curl_sends_and_reads_large_bodies(version: str, tmp_path: Path) -> None:
    """`--http2` asks for an upgrade from HTTP/1.1, which is not taken."""
    body = bytes(range(256)) * (LARGE // 256)
    sent = tmp_path / "body"
    sent.write_bytes(body)
    arguments = [version, "--data-binary", f"@{sent}", "-H", "expect: 100-continue"]
    assert at_a_gateway(lambda port: curl(*arguments, f"http://127.0.0.1:{port}/x")) == body


@needs_curl
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_sends_a_body_of_unknown_length(version: str) -> None:
    body = b"x" * 1_000_000
    assert at_a_gateway(lambda port: curl(version, "-T", "-", f"http://127.0.0.1:{port}/x", stdin=body)) == body


@needs_curl
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_asks_for_the_head_only(version: str) -> None:
    def hello(exchange: Exchange) -> None:
        exchange.send_whole(200, [(b"x-a", b"b")], b"hello")

    head = at_a_gateway(lambda port: curl(version, "-I", f"http://127.0.0.1:{port}/"), hello).decode().lower()
    assert ("content-length: 5" in head, "x-a: b" in head) == (True, True)


def test_httpx_uses_one_connection_for_all_its_requests() -> None:
    def talk(port: int) -> tuple[list[str], int]:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answers = [client.post("/", content=f"{number}") for number in range(20)]
            streams = {id(each.extensions["network_stream"]) for each in answers}
            return [each.text for each in answers], len(streams)

    assert at_a_gateway(talk) == ([f"{number}" for number in range(20)], 1)


def test_httpx_streams_in_both_directions() -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(200):
            yield b"%d" % number * 1_000

    def talk(port: int) -> tuple[bytes, str]:
        with httpx.stream("PUT", f"http://127.0.0.1:{port}/", content=pieces(), trust_env=False) as answer:
            return b"".join(answer.iter_bytes()), answer.headers["transfer-encoding"]

    assert at_a_gateway(talk) == (b"".join(pieces()), "chunked")


def test_pythons_own_client_keeps_its_connection_alive() -> None:
    def talk(port: int) -> list[bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        bodies = []
        for number in range(3):
            connection.request("POST", "/", body=b"%d" % number)
            bodies.append(connection.getresponse().read())
        connection.close()
        return bodies

    assert at_a_gateway(talk) == [b"0", b"1", b"2"]
