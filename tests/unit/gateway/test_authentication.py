"""Authentication and limits at the gRPC port, with stock clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jwt.algorithms import ECAlgorithm

from gateway.typed_entry import TypedEntry
from mesh.authentication import ClientRequest, Refused
from mesh.exceptions import GrpcStatusError
from mesh.wire.api_key_lines import key_line
from mesh.wire.identity import Identity
from mesh.wire.outcome import Outcome
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    UNARY,
    FakeRouter,
    Gateway,
    allow,
    echo,
    failure_of,
    finish,
    item,
    on_io_loop,
    routes_of,
    until,
)
from tests.unit.gateway.guarded import guarded

HERE = "tests.unit.gateway.test_authentication"


async def call(gateway: Gateway, method: str = UNARY, request: bytes = b"x", **metadata: str) -> grpc.StatusCode:
    try:
        answer = await gateway.channel.unary_unary(method)(request, metadata=tuple(metadata.items()), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert answer == request
    return grpc.StatusCode.OK


# ---- Keys and tokens -------------------------------------------------------------------------------------------------


def test_an_api_key_opens_the_gateway_and_names_its_client(tmp_path: Path) -> None:
    """Also after the file has changed; the key itself is in no log."""

    async def scenario() -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text(f"# comment\n\n{key_line('alice', 'a-key', {'role': 'admin'})}\n")
        router = FakeRouter(echo)
        async with guarded(router, authentication={"keys_file": str(keys)}) as (gateway, security):
            assert await call(gateway) is grpc.StatusCode.UNAUTHENTICATED
            assert await call(gateway, authorization="Bearer another") is grpc.StatusCode.UNAUTHENTICATED
            assert await call(gateway, authorization="Basic a-key") is grpc.StatusCode.UNAUTHENTICATED
            assert not router.calls
            assert await call(gateway, authorization="bearer a-key") is grpc.StatusCode.OK
            assert await call(gateway, **{"x-api-key": "a-key"}) is grpc.StatusCode.OK
            assert {call.request.context.identity for call in router.calls} == {Identity("alice", {"role": "admin"})}
            keys.write_text(key_line("bob", "b-key", {}))
            await asyncio.to_thread(security._watch.look)
            assert await call(gateway, authorization="Bearer a-key") is grpc.StatusCode.UNAUTHENTICATED
            assert await call(gateway, authorization="Bearer b-key") is grpc.StatusCode.OK
            await gateway.idle()
            assert gateway.sample("mesh_gateway_grpc_requests_total", "other", "other", "UNAUTHENTICATED") == 4

    on_io_loop(scenario())


def test_unknown_methods_are_not_revealed_to_strangers(tmp_path: Path) -> None:
    async def scenario() -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text(key_line("alice", "a-key", {}))
        async with guarded(FakeRouter(echo), authentication={"keys_file": str(keys)}) as (gateway, _):
            for method in ("/shop.Store/Nope", UNARY):
                error = await failure_of(gateway.channel.unary_unary(method)(b"", timeout=10))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "shop.Store" not in (error.details() or "")
            assert await call(gateway, "/shop.Store/Nope", authorization="Bearer a-key") is (
                grpc.StatusCode.UNIMPLEMENTED
            )

    on_io_loop(scenario())


def test_unknown_methods_below_an_open_path_are_not_revealed_either(tmp_path: Path) -> None:
    """In every dialect; a method that exists there is served."""

    async def scenario() -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text(key_line("alice", "a-key", {}))
        authentication = {"keys_file": str(keys), "open_paths": ["/shop.Store/*", "/grpc.health.v1.Health/*"]}
        async with guarded(FakeRouter(echo), authentication=authentication) as (gateway, _):
            entry = TypedEntry(gateway.listener.methods)
            entry.set_routes(routes_of("a"))
            gateway.listener.add_dialects(*entry.dialects)
            assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            for method in ("/shop.Store/Nope", "/grpc.health.v1.Health/Nope"):
                error = await failure_of(gateway.channel.unary_unary(method)(b"", timeout=10))
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
                assert error.details() == "No method of this name is served."
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10) as client:
                for kind in ("grpc-web+proto", "proto", "connect+proto", "json"):
                    answer = await client.post("/shop.Store/Nope", headers={"content-type": f"application/{kind}"})
                    assert b"No method of this name is served." in answer.content, kind
                    assert b"Store" not in answer.content

    on_io_loop(scenario())


def test_health_is_open_unless_that_is_closed_too(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(key_line("alice", "a-key", {}))

    async def scenario(**options: Any) -> grpc.StatusCode:
        async with guarded(FakeRouter(echo), authentication={"keys_file": str(keys), **options}) as (gateway, _):
            try:
                await health_pb2_grpc.HealthStub(gateway.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    assert on_io_loop(scenario()) is grpc.StatusCode.OK
    assert on_io_loop(scenario(open_paths=[])) is grpc.StatusCode.UNAUTHENTICATED


def test_health_by_json_is_as_open_as_by_grpc(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(key_line("alice", "a-key", {}))

    async def scenario(**options: Any) -> list[int]:
        async with guarded(FakeRouter(), authentication={"keys_file": str(keys), **options}) as (gateway, _):
            entry = TypedEntry(gateway.listener.methods, gateway.health.handler())
            gateway.listener.add_dialects(*entry.dialects)
            statuses = []
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10) as client:
                for headers in ({}, {"authorization": "Bearer a-key"}):
                    answer = await client.post("/grpc.health.v1.Health/Check", headers=headers)
                    statuses.append(answer.status_code)
            return statuses

    assert on_io_loop(scenario()) == [200, 200]
    assert on_io_loop(scenario(open_paths=[])) == [401, 200]


def test_a_jwt_opens_the_gateway(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(ECAlgorithm.to_jwk(private.public_key())), "kid": "k1", "alg": "ES256", "use": "sig"}
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public]}))
    claims = {"sub": "alice", "iss": "https://login", "aud": "shop", "exp": time.time() + 600, "scope": "read write"}

    async def scenario() -> None:
        router = FakeRouter(echo)
        options = {"keys_file": str(jwks), "algorithms": ["ES256"], "issuer": "https://login", "audience": "shop"}
        async with guarded(router, authentication={"jwt": options}) as (gateway, _):
            token = jwt.encode(claims, private, "ES256", headers={"kid": "k1"})
            assert await call(gateway, authorization=f"Bearer {token}") is grpc.StatusCode.OK
            identity = router.calls[0].request.context.identity
            assert identity is not None
            assert identity.attributes["scope"] == "read write"
            old = jwt.encode({**claims, "exp": time.time() - 600}, private, "ES256", headers={"kid": "k1"})
            error = await failure_of(
                gateway.channel.unary_unary(UNARY)(b"", metadata=(("authorization", f"Bearer {old}"),), timeout=10)
            )
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "The token has expired.")

    on_io_loop(scenario())


# ---- The user's function ---------------------------------------------------------------------------------------------


class Door:
    """What the functions below see and wait for."""

    def __init__(self) -> None:
        self.requests: list[ClientRequest] = []
        self.threads: set[int] = set()
        self.is_open = threading.Event()


door = Door()


@pytest.fixture(autouse=True)
def new_door() -> Iterator[None]:
    global door
    door = Door()
    yield
    door.is_open.set()


async def by_header(request: ClientRequest) -> Identity | Refused:
    door.requests.append(request)
    door.threads.add(threading.get_ident())
    match request.metadata.get("who"):
        case "known":
            return Identity("known", {"by": "header"})
        case "banned":
            return Refused("You are banned.", grpc.StatusCode.PERMISSION_DENIED)
        case "raise":
            raise ValueError("a secret of the function")
        case "status":
            raise GrpcStatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many log-ins")
        case "nothing":
            return None  # type: ignore[return-value]
        case "ok-status":
            return Refused("hm", grpc.StatusCode.OK)
        case "wait":
            await asyncio.to_thread(door.is_open.wait, 20)
            return Identity("patient")
        case "block":
            door.is_open.wait(20)
            return Identity("late")
        case "hang":
            await asyncio.Event().wait()
    return Refused()


async def before_check(gateway: Gateway, count: int) -> None:
    await until(lambda: len(door.requests) == count, f"{count} checks")


def test_a_function_decides_and_every_failure_refuses(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            assert await call(gateway, who="known") is grpc.StatusCode.OK
            assert router.calls[0].request.context.identity == Identity("known", {"by": "header"})
            for who, code in {
                "": grpc.StatusCode.UNAUTHENTICATED,
                "banned": grpc.StatusCode.PERMISSION_DENIED,
                "raise": grpc.StatusCode.UNAUTHENTICATED,
                "status": grpc.StatusCode.RESOURCE_EXHAUSTED,
                "nothing": grpc.StatusCode.UNAUTHENTICATED,
                "ok-status": grpc.StatusCode.UNAUTHENTICATED,
            }.items():
                error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", metadata=(("who", who),), timeout=10))
                assert error.code() is code, who
                assert "secret" not in (error.details() or "")
            assert len(router.calls) == 1
            seen = door.requests[0]
            assert (seen.path, seen.http_method, seen.certificate) == (UNARY, "POST", None)
            assert seen.peer.startswith("ipv4:127.0.0.1:")
            assert threading.get_ident() not in door.threads

    with caplog.at_level(logging.ERROR, "mesh.gateway"):
        on_io_loop(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_call_waits_with_its_request_until_the_function_has_decided() -> None:
    """Unary and streamed requests arrive whole."""

    def answer(call: Any) -> None:
        if not call.request.streams_request:
            return echo(call)
        router.link.on_half_close = lambda call: finish(call, Outcome(payload=None))
        router.link.on_item = lambda call, data: item(call, data)
        return allow(call, 100)

    router = FakeRouter(answer)

    async def scenario() -> None:
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            who = (("who", "wait"),)
            unary = gateway.channel.unary_unary(UNARY)(b"u" * 100_000, metadata=who, timeout=20)
            stream = gateway.channel.stream_stream(BIDI)(metadata=who, timeout=20)
            await stream.write(b"first")
            await stream.write(b"second")
            await stream.done_writing()
            await before_check(gateway, 2)
            assert gateway.metrics.in_flight.count == 2
            assert not router.calls
            door.is_open.set()
            assert await unary == b"u" * 100_000
            assert [each async for each in stream] == [b"first", b"second"]
            await gateway.idle()
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_a_function_that_blocks_holds_up_no_other_call() -> None:
    """The I/O loop goes on, and open paths are answered."""

    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:by_header") as (gateway, _):
            blocked = asyncio.ensure_future(call(gateway, who="block"))
            await before_check(gateway, 1)
            health = health_pb2_grpc.HealthStub(gateway.channel)
            await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert not blocked.done()
            door.is_open.set()
            assert await blocked is grpc.StatusCode.OK

    on_io_loop(scenario())


@pytest.mark.parametrize("who", ["hang", "block"])
def test_a_function_that_takes_too_long_is_unavailable(who: str) -> None:
    async def scenario() -> None:
        options = {"function": f"{HERE}:by_header", "timeout_s": 0.05}
        async with guarded(FakeRouter(echo), authentication=options) as (gateway, _):
            assert await call(gateway, who=who) is grpc.StatusCode.UNAVAILABLE
            door.is_open.set()
            await gateway.idle()

    on_io_loop(scenario())


def test_too_many_checks_at_a_time_are_unavailable() -> None:
    async def scenario() -> None:
        options = {"function": f"{HERE}:by_header", "concurrent_max": 2}
        async with guarded(FakeRouter(echo), authentication=options) as (gateway, _):
            waiting = [asyncio.ensure_future(call(gateway, who="wait")) for _ in range(2)]
            await before_check(gateway, 2)
            assert await call(gateway, who="known") is grpc.StatusCode.UNAVAILABLE
            door.is_open.set()
            assert await asyncio.gather(*waiting) == [grpc.StatusCode.OK] * 2
            assert await call(gateway, who="known") is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_a_client_that_leaves_while_it_is_checked_leaves_nothing() -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            stream = gateway.channel.stream_unary(CLIENT_STREAM)(metadata=(("who", "wait"),), timeout=20)
            await stream.write(b"x" * 1000)
            await until(lambda: gateway.listener.buffered_bytes >= 1000, "the request")
            stream.cancel()
            await gateway.idle()
            assert gateway.listener.buffered_bytes == 0
            door.is_open.set()
            assert await call(gateway, who="known") is grpc.StatusCode.OK
        assert len(router.calls) == 1

    on_io_loop(scenario())


def test_the_end_of_a_gateway_refuses_what_is_being_checked() -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:by_header") as (gateway, security):
            waiting = asyncio.ensure_future(call(gateway, who="hang"))
            await before_check(gateway, 1)
            await security.close()
            assert await waiting is grpc.StatusCode.UNAVAILABLE
            assert await call(gateway, who="known") is grpc.StatusCode.UNAVAILABLE

    on_io_loop(scenario())


def not_async(request: ClientRequest) -> Identity:
    return Identity("x")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no.such.module:check", "cannot import no.such.module:check on this node"),
        (f"{HERE}:missing", "has no attribute 'missing'"),
        (f"{HERE}:not_async", "must be an `async def` function"),
    ],
)
def test_a_gateway_does_not_start_with_a_wrong_function(path: str, text: str) -> None:
    async def scenario() -> None:
        with pytest.raises((ImportError, TypeError), match=text) as caught:
            async with guarded(FakeRouter(echo), authentication=path):
                pass
        assert "grpc_options['authentication']['function']" in str(caught.value)

    on_io_loop(scenario())


# ---- Limits ----------------------------------------------------------------------------------------------------------


def limits(tmp_path: Path, **options: Any) -> dict[str, Any]:
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(key_line(name, f"key of {name}", {}) for name in ("alice", "bob")))
    return {"authentication": {"keys_file": str(keys)}, **options}


async def call_as(gateway: Gateway, name: str, method: str = UNARY) -> grpc.StatusCode:
    return await call(gateway, method, authorization=f"Bearer key of {name}")


def test_a_rate_is_counted_per_identity(tmp_path: Path) -> None:
    """The refusal says when to come again."""

    async def scenario() -> None:
        options = limits(tmp_path, limits_per_identity={"*": {"rate_per_s": 0.001, "burst": 2}})
        router = FakeRouter(echo)
        async with guarded(router, **options) as (gateway, security):
            ok, exhausted = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
            assert [await call_as(gateway, "alice") for _ in range(3)] == [ok, ok, exhausted]
            assert await call_as(gateway, "bob") is ok
            again = gateway.channel.unary_unary(UNARY)
            error = await failure_of(again(b"", metadata=(("authorization", "Bearer key of alice"),), timeout=10))
            pushback = dict(list(error.trailing_metadata()))["grpc-retry-pushback-ms"]
            assert 900_000 < int(str(pushback)) <= 1_000_000
            samples = {family.name: samples for family, samples in security.collect()}
            assert samples["mesh_gateway_limited_total"][0].value == 2
        assert len(router.calls) == 3

    on_io_loop(scenario())


def test_concurrent_calls_are_counted_until_they_end(tmp_path: Path) -> None:
    held: list[Any] = []
    ending: Callable[[Any], None] = held.append

    async def scenario() -> None:
        router = FakeRouter(ending)
        options = limits(tmp_path, limits_per_identity={"alice": {"concurrent": 1}})
        async with guarded(router, **options) as (gateway, _):
            first = asyncio.ensure_future(call_as(gateway, "alice"))
            await until(lambda: held, "the first call")
            assert await call_as(gateway, "alice") is grpc.StatusCode.RESOURCE_EXHAUSTED
            other = asyncio.ensure_future(call_as(gateway, "bob"))
            await until(lambda: len(held) == 2, "the other client's call")
            for each in held:
                echo(each)
            assert await first is await other is grpc.StatusCode.OK
            router.answer = echo
            assert await call_as(gateway, "alice") is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_a_method_is_limited_for_all_clients_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        options = limits(tmp_path, limits_per_method={UNARY: {"rate_per_s": 0.001, "burst": 2}})
        async with guarded(FakeRouter(echo), **options) as (gateway, _):
            assert await call_as(gateway, "alice") is grpc.StatusCode.OK
            assert await call_as(gateway, "bob") is grpc.StatusCode.OK
            assert await call_as(gateway, "bob") is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await call_as(gateway, "bob", "/shop.Store/Read") is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_without_authentication_clients_count_by_their_address() -> None:
    async def scenario() -> None:
        limit = {"*": {"rate_per_s": 0.001, "burst": 1}}
        async with guarded(FakeRouter(echo), limits_per_identity=limit) as (gateway, _):
            assert await call(gateway) is grpc.StatusCode.OK
            assert await call(gateway) is grpc.StatusCode.RESOURCE_EXHAUSTED

    on_io_loop(scenario())
