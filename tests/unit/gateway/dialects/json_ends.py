"""Both ends of the JSON dialect: requests as clients send them, and a router that answers for the replicas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from gateway.dialects.json_http.json_dialect import JsonDialect
from gateway.dialects.method_lookup import ServedMethods
from gateway.ops.grpc_metrics import REQUESTS, GrpcMetrics
from gateway.requests.exchange import ExchangeReceiver
from gateway.requests.routes import read_routes
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.status_codes import status_code
from mesh.v1 import control_pb2
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.gateway.fakes import FakeRouter, finish
from tests.unit.protos import kinds_pb2

SERVICE = "/kinds.Library/"


def descriptor_set() -> bytes:
    """All files of the kinds service, each behind those that it imports."""
    files: dict[str, FileDescriptorProto] = {}

    def add(file: Any) -> None:
        for each in file.dependencies:
            add(each)
        files.setdefault(file.name, FileDescriptorProto.FromString(file.serialized_pb))

    add(kinds_pb2.DESCRIPTOR)
    return FileDescriptorSet(file=files.values()).SerializeToString()


def library_table(*, has_order: bool = True, **prefixes: str) -> control_pb2.RouteTable:
    """Applications that serve the kinds service, by name with their route prefixes; the first one came first.

    Without `has_order` the table does not say so, as those of earlier versions.
    """
    routes = [
        control_pb2.Route(
            app=app,
            route_prefix=prefix,
            ingress="Front",
            grpc_methods=_library_methods(order if has_order else 0),
            descriptors_digest="kinds",
        )
        for order, (app, prefix) in enumerate(prefixes.items(), 1)
    ]
    routes.sort(key=lambda route: route.app)
    descriptors = control_pb2.DescriptorSet(digest="kinds", serialised=descriptor_set())
    return control_pb2.RouteTable(version=1, routes=routes, descriptor_sets=[descriptors])


def _library_methods(order: int) -> list[control_pb2.GrpcMethod]:
    return [
        control_pb2.GrpcMethod(
            full_name=f"{SERVICE}{method.name}",
            streams_request=method.client_streaming,
            streams_response=method.server_streaming,
            serving_order=order,
        )
        for method in kinds_pb2.DESCRIPTOR.services_by_name["Library"].methods
    ]


class JsonGateway:
    """A dialect in front of a fake router."""

    def __init__(
        self, answer: Callable[[OutgoingCall], None] = lambda call: None, table: control_pb2.RouteTable | None = None
    ) -> None:
        self.router = FakeRouter(answer)
        self.metrics = GrpcMetrics()
        self.methods = methods = ServedMethods(lambda *_: self.router, self.metrics)
        methods.message_max_bytes = 32 * 1024 * 1024
        self.dialect = JsonDialect(methods)
        routes = read_routes(table or library_table(books="/"))
        methods.set_routes(routes)
        self.dialect.set_routes(routes)

    def open(self, method: str, path: str, *fields: tuple[str, str]) -> tuple[FakeExchange, ExchangeReceiver | None]:
        raw_path, _, query = path.partition("?")
        exchange = FakeExchange(request(raw_path, *fields, method=method, query=query.encode()))
        assert self.dialect.claims(exchange.head)
        return exchange, self.dialect.open(exchange)

    def ask(self, method: str, path: str, body: bytes = b"", *fields: tuple[str, str], step: int = 0) -> FakeExchange:
        """A whole request, with what was answered."""
        exchange, receiver = self.open(method, path, *fields)
        if receiver is not None:
            send_body(exchange, receiver, body, step=step)
        return exchange

    @property
    def call(self) -> OutgoingCall:
        (call,) = self.router.calls
        return call

    def assert_counted_once(self, code: int | None = None) -> None:
        """There was one call, it has ended, and with this code if one is given."""
        assert self.metrics.in_flight.count == 0
        handled = {
            sample.label_values[-1]: sample.value
            for family, samples in self.metrics.collect()
            if family is REQUESTS
            for sample in samples
            if sample.value
        }
        assert sum(handled.values()) == 1
        assert code is None or list(handled) == [status_code(code).name]


def answer_with(message: Any, trailers: Trailers = ()) -> Callable[[OutgoingCall], None]:
    return lambda call: finish(call, Outcome(payload=raw(message.SerializeToString()), trailers=trailers))


def fail_with(code: int, message: str, trailers: Trailers = ()) -> Callable[[OutgoingCall], None]:
    return lambda call: finish(call, Outcome(code=code, message=message, trailers=trailers))


def sent_request(call: OutgoingCall, cls: Any) -> Any:
    """The request message that reached the replica."""
    assert call.request.payload is not None
    return cls.FromString(bytes(call.request.payload.data))


def json_of(exchange: FakeExchange) -> Any:
    assert exchange.has_ended
    return json.loads(exchange.body)
