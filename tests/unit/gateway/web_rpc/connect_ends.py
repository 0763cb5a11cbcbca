"""Calls of the protocol Connect in memory: requests as clients send them, and answers as they read them."""

from __future__ import annotations

import json
from typing import Any

from gateway.web_rpc.connect import ConnectDialect
from mesh.rpc.message_reader import decompressed
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.fakes.shop_routes import PRICE, STOCK_PRICE, shop_methods
from tests.unit.gateway.fakes import FakeRouter
from tests.unit.protos.shop_pb2 import Item

PEAR = Item(name="Pär", amount=2**40)
PROTO = PEAR.SerializeToString()
VERSION = ("connect-protocol-version", "1")


class Answer:
    """What a client reads out of an exchange."""

    def __init__(self, exchange: FakeExchange) -> None:
        assert exchange.has_ended
        self.status = exchange.status
        self.headers: dict[str, str] = {}
        for name, value in exchange.fields:
            self.headers.setdefault(name.decode(), value.decode())
        self.body = exchange.body
        self.messages: list[bytes] = []
        self.error: dict[str, Any] | None = None
        self.trailers: dict[str, Any] = {}
        content_type = self.headers.get("content-type", "")
        if content_type.startswith("application/connect+"):
            self._read_stream()
        else:
            self.trailers = {
                name.removeprefix("trailer-"): value
                for name, value in self.headers.items()
                if name.startswith("trailer-")
            }
            if self.status == 200:
                data = self.body
                encoding = self.headers.get("content-encoding")
                self.messages.append(decompressed(data, encoding, 10_000) if encoding else data)
            elif content_type == "application/json":
                self.error = json.loads(self.body)

    def _read_stream(self) -> None:
        body, end = self.body, None
        while body:
            assert end is None, "something follows the end of the stream"
            flags, stop = body[0], 5 + int.from_bytes(body[1:5], "big")
            data, body = body[5:stop], body[stop:]
            if flags & 2:
                end = json.loads(data)
            else:
                encoding = self.headers.get("connect-content-encoding", "")
                self.messages.append(decompressed(data, encoding, 10_000) if flags & 1 else data)
        assert end is not None, "the stream has no end"
        self.error = end.get("error")
        self.trailers = end.get("metadata", {})

    @property
    def code(self) -> str:
        return "ok" if self.error is None else self.error["code"]


def begin(
    router: FakeRouter, path: str, *fields: tuple[str, str], method: str = "POST", query: bytes = b"", **options: Any
) -> tuple[FakeExchange, Any]:
    dialect = ConnectDialect(shop_methods(router, **options))
    exchange = FakeExchange(request(path, *fields, method=method, query=query))
    assert dialect.claims(exchange.head)
    return exchange, dialect.open(exchange)


def call(
    router: FakeRouter,
    path: str = PRICE,
    body: bytes = PROTO,
    *fields: tuple[str, str],
    content_type: str = "application/proto",
    step: int = 0,
    **options: Any,
) -> FakeExchange:
    exchange, receiver = begin(router, path, ("content-type", content_type), VERSION, *fields, **options)
    if receiver is not None:
        send_body(exchange, receiver, body, step=step)
    return exchange


def get(router: FakeRouter, query: str, path: str = STOCK_PRICE, *fields: tuple[str, str]) -> FakeExchange:
    exchange, receiver = begin(router, path, *fields, method="GET", query=query.encode())
    if receiver is not None and not exchange.has_ended:
        receiver.on_end()
    return exchange
