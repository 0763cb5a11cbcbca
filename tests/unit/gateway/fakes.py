"""Fakes of the mesh behind a gateway: a router whose calls a test answers, behind a listener on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc.aio
import pytest

from gateway.gateway_listener import ConnectionRules, GatewayListener
from gateway.http1.http1_limits import Http1Limits
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import Routes, read_routes
from mesh.exceptions import CancelReason
from mesh.http2.upkeep import UpkeepPolicy
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from mesh.wire.payload import Payload, raw
from tests.unit.fakes.small_mesh import SCENARIO_MAX_S
from tests.unit.fakes.waiting import until_async as until  # noqa: F401  For tests that import both from here.

T = TypeVar("T")

UNARY = "/shop.Store/Get"
SERVER_STREAM = "/shop.Store/List"
CLIENT_STREAM = "/shop.Store/Put"
BIDI = "/shop.Store/Chat"
IDEMPOTENT = "/shop.Store/Read"


def on_io_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the I/O loop: grpc.aio needs one loop per process."""
    return io_thread().run(coroutine, SCENARIO_MAX_S)


async def failure_of(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


class FakeLink:
    """The replica's side of the calls: what it received, and the ways to answer."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.half_closed = 0
        self.granted: list[int] = []
        self.on_item: Callable[[OutgoingCall, bytes], None] = lambda call, item: None
        self.on_half_close: Callable[[OutgoingCall], None] = lambda call: None

    def send_item(self, call: OutgoingCall, payload: Payload) -> None:
        self.items.append(bytes(payload.data))
        self.on_item(call, bytes(payload.data))

    def send_half_close(self, call: OutgoingCall) -> None:
        self.half_closed += 1
        self.on_half_close(call)

    def send_credit(self, call: OutgoingCall, items: int) -> None:
        self.granted.append(items)


class FakeRouter:
    """Takes calls and answers them with `answer`."""

    def __init__(self, answer: Callable[[OutgoingCall], None] = lambda call: None) -> None:
        self.answer = answer
        self.calls: list[OutgoingCall] = []
        self.cancelled: list[OutgoingCall] = []
        self.cancel_reasons: list[CancelReason] = []
        self.link = FakeLink()
        self.can_serve = True

    def submit(self, call: OutgoingCall) -> None:
        self.calls.append(call)
        call.state = CallState.SENT
        call.link = self.link  # type: ignore[assignment]
        self.answer(call)

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        self.cancel_reasons.append(reason)
        self.cancelled.append(call)
        call.state = CallState.DONE
        call.sink.on_done(Outcome(code=1, message="cancelled"))


def echo(call: OutgoingCall) -> None:
    assert call.request.payload is not None
    finish(call, Outcome(payload=call.request.payload))


def finish(call: OutgoingCall, outcome: Outcome) -> None:
    call.state = CallState.DONE
    call.sink.on_done(outcome)


def item(call: OutgoingCall, data: bytes) -> None:
    call.sink.on_item(raw(data))


def allow(call: OutgoingCall, items: int) -> None:
    """The replica grants credit for request items."""
    call.request_credit += items
    call.sink.on_credit()


def route_table(*apps: str, prefix: str = "/") -> control_pb2.RouteTable:
    """Every application serves shop.Store with one method of each arity, and an idempotent one. The first was first."""
    table = control_pb2.RouteTable(version=1)
    for order, app in enumerate(apps, 1):
        methods = [
            control_pb2.GrpcMethod(full_name=UNARY),
            control_pb2.GrpcMethod(full_name=IDEMPOTENT, is_idempotent=True),
            control_pb2.GrpcMethod(full_name=SERVER_STREAM, streams_response=True),
            control_pb2.GrpcMethod(full_name=CLIENT_STREAM, streams_request=True),
            control_pb2.GrpcMethod(full_name=BIDI, streams_request=True, streams_response=True),
        ]
        for method in methods:
            method.serving_order = order
        table.routes.add(app=app, route_prefix=f"{prefix}{app}", ingress="Front", grpc_methods=methods)
    return table


def routes_of(*apps: str) -> Routes:
    return read_routes(route_table(*apps))


class Gateway:
    """A listener with a fake router behind it and a client channel in front."""

    def __init__(
        self,
        router: FakeRouter,
        timeout_s: float | None = None,
        policy: UpkeepPolicy | None = None,
        http1: Http1Limits | None = None,
    ) -> None:
        self.router = router
        self.metrics = GrpcMetrics()
        self.health = Health()
        self.listener = GatewayListener(
            lambda *_: router,
            self.metrics,
            self.health.handler(),
            timeout_s=timeout_s,
            rules=ConnectionRules(upkeep=policy or UpkeepPolicy(), http1=http1 or Http1Limits()),
        )
        self.channel: grpc.aio.Channel
        self.port = 0

    async def idle(self) -> None:
        """Wait for the handlers: a client gets its answer shortly before its call is counted."""
        await asyncio.wait_for(self.metrics.in_flight.idle(), 30)

    def sample(self, family: str, *labels: str) -> float:
        """A counter's or gauge's value; a histogram's number of observations."""
        for each, samples in self.metrics.collect():
            for sample in samples:
                if each.name == family and sample.label_values == labels:
                    return sum(sample.buckets) if each.bounds else sample.value
        return 0


@asynccontextmanager
async def serving(
    router: FakeRouter,
    *apps: str,
    message_max_bytes: int = 0,
    timeout_s: float | None = None,
    policy: UpkeepPolicy | None = None,
) -> AsyncIterator[Gateway]:
    gateway = Gateway(router, timeout_s, policy)
    if apps:
        gateway.listener.set_routes(routes_of(*apps))
        gateway.health.set_serving(dict.fromkeys(apps, True))
    gateway.port = await gateway.listener.start("127.0.0.1", 0, message_max_bytes)
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
        gateway.channel = channel
        try:
            yield gateway
        finally:
            gateway.health.close()
            await gateway.listener.stop(0)
