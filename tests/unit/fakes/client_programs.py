"""Programs of others that call the shop: how they are found and run, and grpc-js with its script and its answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

GRPC_JS = "@grpc/grpc-js@1.14.1"
SHOP_PROTO = Path(__file__).parents[1] / "protos" / "shop.proto"

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
  result.details = await unary({name: "details"}).catch((error) =>
    [error.code, error.details, error.metadata.get("grpc-status-details-bin")[0].toString("hex")]);
  result.left = (await unary({name: "deadline"}, null, {deadline: Date.now() + 60000})).answer.amount;
  result.late = await failed({name: "hang"}, {deadline: Date.now() + 100});
  const cancelled = shop.list({name: "hang", amount: 1});
  cancelled.on("data", () => cancelled.cancel());
  result.cancel = await collect(cancelled).catch((error) => error.code);
  console.log(JSON.stringify(result));
  shop.close();
})().catch((error) => { console.error(error); process.exit(1); });
"""


def sold_out() -> grpc.Status:
    """What the shop answers for "details"."""
    status = status_pb2.Status(code=9, message="sold out")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SOLD_OUT"))
    return rpc_status.to_status(status)


def assert_answers_of_grpc_js(result: Any) -> None:
    """What the script prints, as JSON, if the shop is served right."""
    assert result["sizes"] == [0, 1, 70_000, 1_000_000, 4_000_000]
    assert result["many"] == list(range(300))
    assert result["list"] == list(range(500))
    assert result["total"] == sum(range(500))
    assert result["haggle"] == [2 * number for number in range(500)]
    assert result["metadata"] == ["1", "00ff", "1"]
    assert result["abort"] == [5, "nö 100%\n☃"]
    code, message, details = result["details"]
    status = status_pb2.Status.FromString(bytes.fromhex(details))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (code, message, status.message, info.reason) == (9, "sold out", "sold out", "SOLD_OUT")
    assert 30 < result["left"] <= 60
    assert result["late"][0] == 4
    assert result["cancel"] == 1


def install_grpc_js(folder: Path) -> None:
    """With `client.js`, which takes an address, the path of the proto and, for TLS, that of a certificate."""
    npm, _ = tool("npm"), tool("node")
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", GRPC_JS, "@grpc/proto-loader@0.8.0"]
    try:
        subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=100)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {GRPC_JS} here: {error}")
    (folder / "client.js").write_text(JAVASCRIPT)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str, data: bytes = b"", folder: Path | None = None) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=120, cwd=folder, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    """What it prints."""
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], input=stdin, capture_output=True, check=True)
    return done.stdout
