"""Compressed requests that a gateway has no room for join no queue, where they would be kept and not counted."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway.dialects.compression import DecompressionTurns
from gateway.web_rpc.envelope_reader import envelope
from mesh.rpc.message_reader import compressed
from mesh.settings import settings
from tests.unit.fakes.shop_routes import PRICE, TOTAL, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, on_io_loop
from tests.unit.gateway.raw_requests import CONNECT, CONNECT_STREAM, GRPC_WEB, answer_to, post

MESSAGE = compressed(random.Random(1).randbytes(20_000), "gzip")
REQUESTS = {
    "gRPC-Web": post(PRICE, envelope(MESSAGE, 1), GRPC_WEB, "grpc-encoding: gzip"),
    "Connect": post(PRICE, MESSAGE, CONNECT, "content-encoding: gzip"),
    "stream of Connect": post(TOTAL, envelope(MESSAGE, 1), CONNECT_STREAM, "connect-content-encoding: gzip"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_without_room_waits_for_no_turn(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    waiting: list[object] = []
    small = replace(settings(), gateway=replace(settings().gateway, buffer_max_bytes=10_000))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)
    monkeypatch.setattr(DecompressionTurns, "has_room", False)
    monkeypatch.setattr(DecompressionTurns, "wait", lambda turns, share, resume: waiting.append(resume))

    async def scenario() -> bytes:
        async with every_dialect(FakeRouter(lambda call: allow(call, 10))) as gateway:
            return (await answer_to(gateway, REQUESTS[name]))[1]

    answer = on_io_loop(scenario())
    assert b"grpc-status:8" in answer or b"resource_exhausted" in answer
    assert not waiting
