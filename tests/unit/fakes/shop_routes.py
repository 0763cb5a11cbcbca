"""The shop of the unit tests as the routes of a gateway, descriptors included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions

from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.served_method import CallRouter
from gateway.gateway_listener import ConnectionRules, GatewayListener
from gateway.http1.http1_limits import Http1Limits
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import Routes, read_routes
from gateway.typed_entry import TypedEntry
from gateway.web_entry import WebEntry
from mesh.http2.upkeep import UpkeepPolicy
from mesh.options.calls.call_policies import NO_POLICIES, CallPolicies
from mesh.v1 import control_pb2
from tests.unit.gateway.fakes import FakeRouter
from tests.unit.protos import shop_pb2

PRICE = "/mesh.tests.Shop/Price"
LIST = "/mesh.tests.Shop/List"
TOTAL = "/mesh.tests.Shop/Total"
HAGGLE = "/mesh.tests.Shop/Haggle"
STOCK_PRICE = "/mesh.tests.Stock/Price"
"""Has no side effects."""
STOCK_COUNT = "/mesh.tests.Stock/Count"
"""Is idempotent."""
MESSAGE_MAX_BYTES = 1000


def shop_routes(*apps: str, has_descriptors: bool = True, serves_web: bool = False) -> Routes:
    """Every application serves Shop and Stock; the first one came first, with the route prefix "/", others "/NAME"."""
    routes = [
        control_pb2.Route(
            app=app,
            route_prefix=f"/{app}" if number else "/",
            ingress="Front",
            grpc_methods=_methods(number + 1),
            descriptors_digest="shop" if has_descriptors else "",
            serves_web=serves_web,
        )
        for number, app in enumerate(apps)
    ]
    routes.sort(key=lambda route: route.app)  # as the controller sends them
    file_set = FileDescriptorSet()
    shop_pb2.DESCRIPTOR.CopyToProto(file_set.file.add())
    sets = [control_pb2.DescriptorSet(digest="shop", serialised=file_set.SerializeToString())]
    return read_routes(control_pb2.RouteTable(version=1, routes=routes, descriptor_sets=sets))


def _methods(order: int) -> list[control_pb2.GrpcMethod]:
    return [
        control_pb2.GrpcMethod(
            full_name=f"/{service.full_name}/{method.name}",
            streams_request=method.client_streaming,
            streams_response=method.server_streaming,
            is_idempotent=method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
            serving_order=order,
        )
        for service in shop_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def shop_methods(router: FakeRouter, *, has_descriptors: bool = True, timeout_s: float | None = None) -> ServedMethods:
    """What a listener gives its dialects."""
    methods = ServedMethods(lambda *_: router, GrpcMetrics(), timeout_s=timeout_s)
    methods.message_max_bytes = MESSAGE_MAX_BYTES
    methods.set_routes(shop_routes("shop", has_descriptors=has_descriptors))
    return methods


@dataclass
class EveryDialect:
    """A listener that speaks all dialects."""

    listener: GatewayListener
    port: int


@asynccontextmanager
async def every_dialect(
    router: CallRouter,
    policies: CallPolicies = NO_POLICIES,
    policy: UpkeepPolicy | None = None,
    http1: Http1Limits | None = None,
    apps: tuple[str, ...] = ("shop",),
) -> AsyncIterator[EveryDialect]:
    """The applications serve web requests and WebSockets too, wherever no typed method is."""
    health = Health()
    rules = ConnectionRules(upkeep=policy or UpkeepPolicy(), http1=http1 or Http1Limits())
    listener = GatewayListener(lambda *_: router, GrpcMetrics(), health.handler(), rules=rules)
    listener.methods.policies = policies
    typed, web = TypedEntry(listener.methods), WebEntry(lambda *_: router, control_pb2.GatewayOptions())
    listener.add_dialects(*typed.dialects, *web.dialects)
    routes = shop_routes(*apps, serves_web=True)
    listener.set_routes(routes)
    typed.set_routes(routes)
    web.set_routes(routes, routes.applications)
    port = await listener.start("127.0.0.1", 0)
    try:
        yield EveryDialect(listener, port)
        await listener.idle()
    finally:
        health.close()
        await listener.stop(0)
