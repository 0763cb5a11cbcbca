"""Clients that are not Python: grpc-js, curl, nghttp and h2load. Those that are not installed are skipped."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fakes.rpc_ends import AsyncShop, Item, ThreadShop, certificate_files, our_server, scenario

pytestmark = pytest.mark.timeout(240)

GRPC_JS = "@grpc/grpc-js@1.14.1"
SHOP_PROTO = Path(__file__).parents[1] / "protos" / "shop.proto"
MESSAGE = Item(name="abc").SerializeToString()
FRAMED = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE

JAVASCRIPT = """
const grpc = require("@grpc/grpc-js"), fs = require("fs");
const [address, proto, certificate] = process.argv.slice(2);
const loaded = require("@grpc/proto-loader").loadSync(proto, {longs: Number, defaults: true});
const Shop = grpc.loadPackageDefinition(loaded).mesh.tests.Shop;
const options = {"grpc.default_compression_algorithm": 2};
const credentials = certificate
  ? grpc.credentials.createSsl(fs.readFileSync(certificate)) : grpc.credentials.createInsecure();
const shop = new Shop(address, credentials, options);
const unary = (item, metadata, options) => new Promise((resolve, reject) => {
  const result = {};
  const call = shop.price(item, metadata || new grpc.Metadata(), options || {},
    (error, answer) => error ? reject(error) : result.answer = answer);
  call.on("metadata", (initial) => result.initial = initial.getMap());
  call.on("status", (status) => { result.trailing = status.metadata.getMap(); resolve(result); });
});
const collect = (stream) => new Promise((resolve, reject) => {
  const amounts = [];
  stream.on("data", (item) => amounts.push(item.amount)).on("error", reject).on("end", () => resolve(amounts));
});
const send = (stream, count) => {
  for (let amount = 0; amount < count; amount++) stream.write({amount});
  stream.end();
};
(async () => {
  const result = {sizes: []};
  for (const size of [0, 1, 70000, 1000000, 4000000])
    result.sizes.push((await unary({name: "x".repeat(size)})).answer.amount);
  const many = [];
  for (let size = 0; size < 300; size++) many.push(unary({name: "x".repeat(size)}));
  result.many = (await Promise.all(many)).map((each) => each.answer.amount);
  result.list = await collect(shop.list({name: "z".repeat(1000), amount: 500}));
  result.total = (await new Promise((resolve, reject) => send(
    shop.total((error, answer) => error ? reject(error) : resolve(answer)), 500))).amount;
  const haggling = shop.haggle(), haggled = collect(haggling);
  send(haggling, 500);
  result.haggle = await haggled;
  const metadata = new grpc.Metadata();
  metadata.add("x-one", "1");
  metadata.add("x-b-bin", Buffer.from([0, 255]));
  const {initial, trailing} = await unary({name: "metadata"}, metadata);
  result.metadata = [initial["first"], initial["x-b-bin"].toString("hex"), trailing["x-one"]];
  const failed = (item, options) => unary(item, null, options).catch((error) => [error.code, error.details]);
  result.abort = await failed({name: "abort"});
  result.late = await failed({name: "hang"}, {deadline: Date.now() + 100});
  const cancelled = shop.list({name: "hang", amount: 1});
  cancelled.on("data", () => cancelled.cancel());
  result.cancel = await collect(cancelled).catch((error) => error.code);
  console.log(JSON.stringify(result));
  shop.close();
})().catch((error) => { console.error(error); process.exit(1); });
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str, data: bytes = b"", folder: Path | None = None) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=120, cwd=folder, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


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
    npm, _ = tool("npm"), tool("node")
    folder = tmp_path_factory.mktemp("grpc-js")
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", GRPC_JS, "@grpc/proto-loader@0.8.0"]
    try:
        subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=100)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {GRPC_JS} here: {error}")
    (folder / "client.js").write_text(JAVASCRIPT)
    return folder


@pytest.mark.parametrize(("servicer", "carrier"), [(AsyncShop, "tcp"), (ThreadShop, "tls")])
def test_grpc_js(grpc_js: Path, servicer: Any, carrier: str) -> None:
    """All arities, with compressed requests, metadata, statuses, a deadline and a cancel."""
    certificate = [str(certificate_files()[1])] if carrier == "tls" else []

    def talk(address: str) -> bytes:
        return run("node", "client.js", address, str(SHOP_PROTO), *certificate, folder=grpc_js)

    result = json.loads(against_our_server(servicer(), talk, carrier))
    assert result["sizes"] == [0, 1, 70_000, 1_000_000, 4_000_000]
    assert result["many"] == list(range(300))
    assert result["list"] == list(range(500))
    assert result["total"] == sum(range(500))
    assert result["haggle"] == [2 * number for number in range(500)]
    assert result["metadata"] == ["1", "00ff", "1"]
    assert result["abort"] == [5, "nö 100%\n☃"]
    assert result["late"][0] == 4
    assert result["cancel"] == 1


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
