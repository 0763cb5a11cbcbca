"""Authentication at the gRPC port by keys and tokens, and limits per client, with stock clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
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
from mesh.wire.api_key_lines import key_line
from mesh.wire.identity import Identity
from tests.unit.gateway.fakes import UNARY, FakeRouter, Gateway, echo, failure_of, on_io_loop, routes_of, until
from tests.unit.gateway.guarded import guarded


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


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
@pytest.mark.parametrize("second", ["a-key", "b-key"])
def test_credentials_that_are_there_twice_are_refused_in_every_dialect(tmp_path: Path, name: str, second: str) -> None:
    """A proxy in front that has checked one of them may have read the other one; also where both are the same."""
    scheme = "Bearer " if name == "authorization" else ""
    twice = [(name, f"{scheme}a-key"), (name, f"{scheme}{second}")]

    async def scenario() -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text(key_line("alice", "a-key", {}))
        router = FakeRouter(echo)
        async with guarded(router, authentication={"keys_file": str(keys)}) as (gateway, _):
            entry = TypedEntry(gateway.listener.methods)
            entry.set_routes(routes_of("a"))
            gateway.listener.add_dialects(*entry.dialects)
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", metadata=twice, timeout=10))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "twice" in (error.details() or "")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10) as client:
                for kind in ("grpc-web+proto", "proto", "connect+proto", "json"):
                    fields = [("content-type", f"application/{kind}"), *twice]
                    answer = await client.post(UNARY, headers=fields)
                    assert b"credentials twice" in answer.content, kind
                page = await client.get("/anything", headers=twice)
                assert page.status_code == 401
            assert not router.calls

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
