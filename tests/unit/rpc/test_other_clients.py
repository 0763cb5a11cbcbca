"""Clients that are not Python: grpc-js, curl, nghttp and h2load. Those that are not installed are skipped."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fakes.client_programs import SHOP_PROTO, assert_answers_of_grpc_js, install_grpc_js, run, tool
from tests.unit.fakes.rpc_ends import AsyncShop, Item, ThreadShop, certificate_files, our_server, scenario

pytestmark = pytest.mark.timeout(240)

MESSAGE = Item(name="abc").SerializeToString()
FRAMED = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE


def against_our_server(servicer: Any, talk: Callable[[str], bytes], carrier: str = "tcp") -> bytes:
    """What `talk` returns, which gets the server's address and runs in a thread."""

    async def serve() -> bytes:
        async with our_server(servicer, carrier) as (_, address):
            return await asyncio.to_thread(talk, address)

    return scenario(serve())


# ---- grpc-js ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grpc_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with grpc-js."""
    folder = tmp_path_factory.mktemp("grpc-js")
    install_grpc_js(folder)
    return folder


@pytest.mark.parametrize(("servicer", "carrier"), [(AsyncShop, "tcp"), (ThreadShop, "tls")])
def test_grpc_js(grpc_js: Path, servicer: Any, carrier: str) -> None:
    """All arities, with compressed requests, metadata, statuses, details, a deadline and a cancel."""
    certificate = [str(certificate_files()[1])] if carrier == "tls" else []

    def talk(address: str) -> bytes:
        return run("node", "client.js", address, str(SHOP_PROTO), *certificate, folder=grpc_js)

    assert_answers_of_grpc_js(json.loads(against_our_server(servicer(), talk, carrier)))


# ---- Tools of HTTP/2 -------------------------------------------------------------------------------------------------

HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")


@cache
def curl_speaks_http2() -> bool:
    return b"HTTP2" in run(tool("curl"), "--version")


def test_curl() -> None:
    if not curl_speaks_http2():
        pytest.skip("this curl has no HTTP/2")

    def talk(address: str) -> bytes:
        url = f"http://{address}/mesh.tests.Shop/Price"
        return run("curl", "--http2-prior-knowledge", "-sS", "-i", *HEADERS, "--data-binary", "@-", url, data=FRAMED)

    answer = against_our_server(AsyncShop(), talk)
    assert answer.startswith(b"HTTP/2 200")
    assert b"content-type: application/grpc" in answer
    assert Item(name="abc", amount=3).SerializeToString() in answer
    assert b"grpc-status: 0" in answer


def test_curl_without_grpc_learns_what_is_missing() -> None:
    if not curl_speaks_http2():
        pytest.skip("this curl has no HTTP/2")

    def talk(address: str) -> bytes:
        return run("curl", "--http2-prior-knowledge", "-sS", "-i", f"http://{address}/")

    answer = against_our_server(AsyncShop(), talk)
    assert answer.startswith(b"HTTP/2 415")
    assert b"accept: application/grpc" in answer


def test_nghttp(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(FRAMED)

    def talk(address: str) -> bytes:
        url = f"http://{address}/mesh.tests.Shop/Price"
        return run(tool("nghttp"), "-v", *HEADERS, "-d", str(body), url)

    answer = against_our_server(AsyncShop(), talk)
    assert b"grpc-status: 0" in answer
    assert b"error_code=NO_ERROR" in answer
    assert not re.search(rb"error_code=(?!NO_ERROR)", answer), answer


def test_h2load(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(FRAMED)

    def talk(address: str) -> bytes:
        url = f"http://{address}/mesh.tests.Shop/Price"
        return run(tool("h2load"), "-n1000", "-c10", "-m20", *HEADERS, "-d", str(body), url)

    answer = against_our_server(AsyncShop(), talk)
    assert b"1000 succeeded, 0 failed, 0 errored, 0 timeout" in answer
    assert b"status codes: 1000 2xx" in answer
