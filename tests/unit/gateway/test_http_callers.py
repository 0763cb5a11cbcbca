"""Who sends HTTP requests: authentication, limits and TLS for every dialect, on real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gateway.access.exchange_guard import AwaitingCaller
from gateway.built_in.built_in_entry import BuiltInEntry
from gateway.dialects.served_method import ServedMethod
from gateway.requests.cors import CorsPolicy
from gateway.requests.dialect_list import DialectList, answer_json
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, HttpHead
from gateway.requests.routes import Refusal
from mesh.authentication import ClientRequest, Refused
from mesh.wire.api_key_lines import key_line
from mesh.wire.identity import Identity
from tests.unit.fakes.certificates import Pki
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.fakes.http1_ends import Keeper
from tests.unit.gateway.fakes import UNARY, FakeRouter, Gateway, echo, on_io_loop, until
from tests.unit.gateway.guarded import guarded

HERE = "tests.unit.gateway.test_http_callers"


class Answer(NamedTuple):
    status: int
    body: Any
    fields: dict[str, str]


class ShowCaller:
    """A dialect that answers with who calls, and with the body that came, as one call of a method."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.opened: list[HttpHead] = []

    def claims(self, head: HttpHead) -> bool:
        return True

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        self.opened.append(exchange.head)
        found = self._gateway.listener.methods.find_for("a", UNARY, exchange)
        if isinstance(found, Refusal):
            answer_json(exchange, 429, found.message)
            return None
        return _Body(exchange, found)


class _Body:
    def __init__(self, exchange: Exchange, method: ServedMethod) -> None:
        self._exchange = exchange
        self._method = method
        self._size = 0
        method.in_flight.enter()

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        self._exchange.give_room(len(data))

    def on_end(self) -> None:
        identity = self._method.identity
        self._method.in_flight.leave()
        answer_json(self._exchange, 200, {"who": identity.name if identity else None, "size": self._size})

    def on_broken(self, by: BrokenBy) -> None:
        self._method.in_flight.leave()

    def on_writable(self) -> None: ...


def send(
    gateway: Gateway,
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    """One request of the standard library's client."""
    connection = (
        http.client.HTTPConnection("localhost", gateway.port, timeout=10)
        if tls is None
        else http.client.HTTPSConnection("localhost", gateway.port, timeout=10, context=tls)
    )
    try:
        connection.request(
            method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "keys.txt"
    path.write_text(key_line("alice", "a-key", {}))
    return {"keys_file": str(path)}


def test_requests_need_an_identity_before_any_dialect_sees_them(keys: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=keys) as (gateway, _):
            dialect = ShowCaller(gateway)
            gateway.listener.add_dialects(dialect)
            refused = await asyncio.to_thread(send, gateway, "/shop", "POST", b"body")
            assert (refused.status, refused.body["code"]) == (401, 16)
            assert refused.fields["www-authenticate"] == "Bearer"
            assert not dialect.opened
            known = await asyncio.to_thread(send, gateway, "/shop", "POST", b"body", authorization="Bearer a-key")
            assert (known.status, known.body) == (200, {"who": "alice", "size": 4})

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("path", "is_open"),
    [("/-/healthz", True), ("/-/metrics", False), ("/-/healthz/", False), ("/-/%68ealthz", False)],
)
def test_only_probes_are_open(keys: dict[str, Any], path: str, is_open: bool) -> None:
    async def scenario() -> Answer:
        async with guarded(FakeRouter(echo), authentication=keys) as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            return await asyncio.to_thread(send, gateway, path)

    assert on_io_loop(scenario()).status == (200 if is_open else 401)


def test_what_is_open_can_be_chosen(keys: dict[str, Any]) -> None:
    """A prefix is no way around: an application may resolve dots and escapes."""

    async def scenario() -> list[int]:
        async with guarded(FakeRouter(echo), authentication={**keys, "open_paths": ["/public/*"]}) as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            paths = ("/public/a", "/-/healthz", "/public/../admin", "/public/%2e%2e/admin", "/public//admin")
            return [(await asyncio.to_thread(send, gateway, path)).status for path in paths]

    assert on_io_loop(scenario()) == [200, 401, 401, 401, 401]


def test_what_looks_like_a_preflight_reaches_no_user_code_without_an_identity(keys: dict[str, Any]) -> None:
    """A plain `__call__` and a rule for all methods take OPTIONS like any other. With CORS the gateway answers."""

    async def scenario() -> list[Answer]:
        async with guarded(FakeRouter(echo), authentication=keys) as (gateway, _):
            dialect = ShowCaller(gateway)
            gateway.listener.add_dialects(dialect)
            asked = {"Origin": "https://a.example", "Access_Control_Request_Method": "POST"}
            without = await asyncio.to_thread(lambda: send(gateway, "/?delete=all", "OPTIONS", b"body", **asked))
            known = await asyncio.to_thread(lambda: send(gateway, "/", "OPTIONS", x_api_key="a-key", **asked))
            assert len(dialect.opened) == 1
            return [without, known]

    without, known = on_io_loop(scenario())
    assert (without.status, known.status) == (401, 200)
    assert "http_options={'cors'" in without.body["message"]


def test_with_cors_the_gateway_answers_preflights_before_it_asks_who_calls(keys: dict[str, Any]) -> None:
    async def scenario() -> int:
        async with guarded(FakeRouter(echo), authentication=keys) as (gateway, _):
            dialect = ShowCaller(gateway)
            gateway.listener.add_dialects(dialect)
            gateway.listener.cors.policy = CorsPolicy(origins=["https://a.example"])
            headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
            async with httpx.AsyncClient() as client:
                answer = await client.options(f"http://127.0.0.1:{gateway.port}/", headers=headers)
            assert not dialect.opened
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
            return answer.status_code

    assert on_io_loop(scenario()) == 204


is_open = threading.Event()
seen: list[ClientRequest] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    is_open.clear()
    seen.clear()
    yield
    is_open.set()


async def when_open(request: ClientRequest) -> Identity | Refused:
    seen.append(request)
    await asyncio.to_thread(is_open.wait, 20)
    return Identity("late") if request.metadata.get("x-name") == "late" else Refused("no")


def test_a_request_waits_with_its_body_for_the_users_function() -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:when_open") as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            body = b"x" * 1_000_000
            known, unknown = (
                asyncio.ensure_future(asyncio.to_thread(send, gateway, "/a", "POST", body, x_name=name))
                for name in ("late", "other")
            )
            await until(lambda: len(seen) == 2, "both checks")
            assert {each.path for each in seen} == {"/a"}
            assert not known.done()
            assert gateway.listener.exchanges == 2
            is_open.set()
            assert (await known).body == {"who": "late", "size": len(body)}
            assert (await unknown).status == 401
            await until(lambda: not gateway.listener.exchanges, "the end of both")
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_without_authentication_a_client_is_asked_for_its_body_at_once() -> None:
    async def scenario() -> bytes:
        async with guarded(FakeRouter(echo)) as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
            first = await reader.readline()
            writer.close()
            return first

    assert on_io_loop(scenario()) == b"HTTP/1.1 100 Continue\r\n"


@pytest.mark.parametrize(("name", "follows"), [("late", b"100 Continue"), ("other", b"401 Unauthorized")])
def test_a_client_is_asked_for_its_body_once_the_function_has_let_it_in(name: str, follows: bytes) -> None:
    """One that is refused keeps it (RFC 9110 §10.1.1)."""

    async def scenario() -> bytes:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:when_open") as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            fields = b"expect: 100-continue\r\ncontent-length: 4\r\n"
            writer.write(b"POST /a HTTP/1.1\r\nhost: a\r\nx-name: %b\r\n%b\r\n" % (name.encode(), fields))
            await until(lambda: seen, "the check")
            is_open.set()
            first = await reader.readline()
            if name == "late":
                writer.write(b"body")
                await reader.readuntil(b'"size": 4')
            writer.close()
            return first

    assert on_io_loop(scenario()) == b"HTTP/1.1 %b\r\n" % follows


def test_a_client_that_leaves_while_it_is_checked_leaves_nothing() -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:when_open") as (gateway, _):
            dialect = ShowCaller(gateway)
            gateway.listener.add_dialects(dialect)
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"POST /a HTTP/1.1\r\nhost: a\r\nx-name: late\r\ncontent-length: 10\r\n\r\nhalf")
            await until(lambda: seen, "the check")
            writer.transport.abort()
            await until(lambda: not gateway.listener.exchanges, "the end of the exchange")
            is_open.set()
            await until(lambda: gateway.listener.guard._authenticator._user_check._running == 0, "the check's end")  # type: ignore[union-attr]
            assert not dialect.opened

    on_io_loop(scenario())


def test_http_requests_count_in_the_same_limits_as_grpc(keys: dict[str, Any]) -> None:
    async def scenario() -> None:
        options = {"authentication": keys, "limits_per_identity": {"alice": {"rate_per_s": 0.001, "burst": 2}}}
        async with guarded(FakeRouter(echo), **options) as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            await gateway.channel.unary_unary(UNARY)(b"x", metadata=(("authorization", "Bearer a-key"),), timeout=10)
            statuses = [(await asyncio.to_thread(send, gateway, authorization="Bearer a-key")).status for _ in range(2)]
            assert statuses == [200, 429]

    on_io_loop(scenario())


def test_the_gateways_own_services_count_in_no_limit() -> None:
    """As by gRPC, which health checks of balancers speak."""

    async def scenario() -> None:
        path = "/grpc.health.v1.Health/Check"
        async with guarded(FakeRouter(echo), limits_per_identity={"*": {"rate_per_s": 0.001, "burst": 1}}) as (
            gateway,
            _,
        ):
            gateway.listener.add_dialects(BuiltInEntry(gateway.health.handler()))
            for _ in range(3):
                assert await gateway.channel.unary_unary(path)(b"", timeout=10)
                assert (await asyncio.to_thread(send, gateway, path, "POST", b"{}")).status == 200
            await gateway.channel.unary_unary(UNARY)(b"x", timeout=10)

    on_io_loop(scenario())


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_client_certificate_is_an_identity_in_both_versions_of_http(tmp_path: Path, version: str) -> None:
    pki = Pki(tmp_path / "pki")
    server, alice = pki.server(), pki.client("alice")
    options = {
        "ssl_certfile": str(server.certfile),
        "ssl_keyfile": str(server.keyfile),
        "ssl_ca_certs": pki.ca_certs,
        "authentication": {"certificates": True},
    }
    client = ["--cacert", pki.ca_certs, "--cert", str(alice.certfile), "--key", str(alice.keyfile)]

    async def scenario() -> tuple[str, Any]:
        async with guarded(FakeRouter(echo), **options) as (gateway, _):
            gateway.listener.add_dialects(ShowCaller(gateway))
            command = ["curl", "--silent", version, "--max-time", "10", *client, "--write-out", "\n%{http_version}"]
            url = f"https://localhost:{gateway.port}/a"
            ran = await asyncio.to_thread(subprocess.run, [*command, url], capture_output=True, timeout=20, text=True)
            body, _, used = ran.stdout.rpartition("\n")
            return used, json.loads(body)

    used, body = on_io_loop(scenario())
    assert used == ("2" if version == "--http2" else "1.1")
    assert body["who"] == "alice"


def test_a_dialect_that_fails_once_the_caller_is_known_ends_only_its_exchange(caplog: pytest.LogCaptureFixture) -> None:
    """The user's function answers outside of all connections, which else turn such a fault into 500."""

    def open_as(identity: Identity | None) -> ExchangeReceiver | None:
        raise RuntimeError("a fault of ours")

    exchange = FakeExchange(request("/a"))
    waiting = AwaitingCaller(exchange, open_as, DialectList().refuse)
    waiting.on_body(b"x" * 10)
    assert exchange.share.used_bytes == 10
    waiting.decide(Identity("alice"))
    assert (exchange.status, exchange.has_ended, exchange.share.used_bytes) == (500, True, 0)
    assert b"fault" not in exchange.body
    assert "a fault of ours" in caplog.text


def test_a_receiver_that_fails_with_what_has_waited_hears_of_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Keeper):
        def on_body(self, data: bytes) -> None:
            raise RuntimeError("a fault of ours")

    exchange = FakeExchange(request("/a"))
    failing = Failing(exchange)
    waiting = AwaitingCaller(exchange, lambda identity: failing, DialectList().refuse)
    waiting.on_body(b"x" * 10)
    waiting.decide(Identity("alice"))
    assert (exchange.status, failing.broken) == (500, [BrokenBy.DRAIN])
    assert "a fault of ours" in caplog.text


def test_what_waits_for_the_users_function_counts_as_buffered() -> None:
    """One connection of HTTP/2 may have thousands of such requests."""
    exchange = FakeExchange(request("/a"), budget_bytes=1_000)
    waiting = AwaitingCaller(exchange, lambda identity: None, DialectList().refuse)
    waiting.on_body(b"x" * 400)
    waiting.on_body(b"x" * 400)
    assert (exchange.status, exchange.share.used_bytes) == (429, 0)
