"""Clients that the gateway does not let in: they read the same status and text in every dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest

from gateway.security import Security
from mesh.authentication import ClientRequest, Identity, Refused
from mesh.options.gateway.gateway_options import parse
from tests.unit.fakes.shop_routes import PRICE, STOCK_PRICE, EveryDialect, every_dialect
from tests.unit.gateway.fakes import FakeRouter, on_io_loop
from tests.unit.gateway.raw_requests import answer_to, post
from tests.unit.gateway.test_one_meaning import CLIENTS, GET_CLIENTS
from tests.unit.gateway.typed_clients import TypedCall
from tests.unit.protos.shop_pb2 import Item

EVERY_CLIENT = CLIENTS | GET_CLIENTS
HERE = "tests.unit.gateway.test_refused_callers"


async def by_reason(request: ClientRequest) -> Identity | Refused:
    """Refuses every client, with the code that it names."""
    code = grpc.StatusCode[str(request.metadata["x-own-code"])]
    return Refused(f"No: {code.name}.", code)


@asynccontextmanager
async def closed_gateway() -> AsyncIterator[tuple[EveryDialect, FakeRouter]]:
    options = {"port": 0, "authentication": {"function": f"{HERE}:by_reason"}}
    security, router = Security(parse(None, None, options).to_message()), FakeRouter()
    await security.load()
    try:
        async with every_dialect(router) as gateway:
            gateway.listener.guard = security.guard(gateway.listener.methods.metrics.in_flight)
            yield gateway, router
    finally:
        await security.close()


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"])
def test_a_client_that_is_not_let_in_reads_the_same_in_every_dialect(code: str) -> None:
    """Also codes for which HTTP has one status in common, which Connect and gRPC-Web would read as another one."""

    async def scenario() -> None:
        async with closed_gateway() as (gateway, router):
            for name, client in EVERY_CLIENT.items():
                path = STOCK_PRICE if name in GET_CLIENTS else PRICE
                seen = await client(
                    gateway.port, TypedCall(path=path, requests=(Item(),), metadata=(("x-own-code", code),))
                )
                assert (name, seen.code, seen.message) == (name, grpc.StatusCode[code].value[0], f"No: {code}.")
            assert not router.calls

    on_io_loop(scenario())


def test_a_refusal_has_the_clients_request_id_and_what_401_asks_for() -> None:
    async def scenario() -> None:
        async with closed_gateway() as (gateway, _):
            for kind in ("application/proto", "application/json"):
                fields = {"content-type": kind, "x-own-code": "UNAUTHENTICATED", "x-request-id": "mine"}
                answer = await asyncio.to_thread(httpx.post, f"http://127.0.0.1:{gateway.port}{PRICE}", headers=fields)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), kind
                assert answer.headers["x-request-id"] == "mine", kind

    on_io_loop(scenario())


def test_a_type_of_grpc_web_that_is_not_served_is_refused_as_http_has_it() -> None:
    async def scenario() -> tuple[int, bytes]:
        async with closed_gateway() as (gateway, _):
            return await answer_to(
                gateway, post(PRICE, b"", "application/grpc-web+thrift", "x-own-code: UNAUTHENTICATED")
            )

    status, body = on_io_loop(scenario())
    assert (status, b"No: UNAUTHENTICATED." in body) == (401, True)
