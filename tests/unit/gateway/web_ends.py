"""Both ends of the web dialects in memory: a client's exchange in front, and a fake router behind."""

from __future__ import annotations

from dataclasses import replace

from gateway.dialects.web import WebDialect
from gateway.dialects.web_target import WebOptions, WebTargets
from gateway.dialects.websocket import WebSocketDialect
from gateway.ops.http_metrics import HttpMetrics
from gateway.requests.exchange import BrokenBy, ExchangeReceiver, Fields, HttpHead
from gateway.requests.routes import read_routes
from mesh.exceptions import MeshException
from mesh.link.outgoing_call import OutgoingCall
from mesh.v1 import control_pb2, web_pb2
from mesh.wire.outcome import Outcome, failed
from mesh.wire.payload import raw
from mesh.wire.telemetry import Sample
from mesh.wire.web_messages import decode_request, encode_response
from tests.unit.fakes.fake_exchange import FakeExchange
from tests.unit.gateway.fakes import FakeRouter, finish, item


def web_table(**prefixes: str) -> control_pb2.RouteTable:
    """Applications by name, each at its prefix; all serve web requests except for "typed"."""
    routes = [
        control_pb2.Route(app=app, route_prefix=prefix, ingress="Front", serves_web=app != "typed")
        for app, prefix in prefixes.items()
    ]
    return control_pb2.RouteTable(version=1, routes=routes)


class WebExchange(FakeExchange):
    """An exchange whose client is the test."""

    def __init__(self, head: HttpHead) -> None:
        super().__init__(head)
        self.receiver: ExchangeReceiver
        self.writes = 0

    def field(self, name: str) -> str | None:
        """The value of a field of the answer; the test fails if it is there twice."""
        values = [value.decode() for each, value in self.fields if each == name.encode()]
        assert len(values) < 2
        return values[0] if values else None

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        self.writes += 1
        return super().send_whole(status, fields, body)

    def accept(self, receiver: ExchangeReceiver | None, *, is_complete: bool | None = None) -> None:
        """As a connection does with what a dialect has opened. `is_complete`: the request has no body to come."""
        if receiver is None:
            assert self.has_ended
            return
        self.receiver = receiver
        if not self.has_ended and (not self.head.has_body if is_complete is None else is_complete):
            receiver.on_end()

    def receive(self, *pieces: bytes, ends: bool = True) -> None:
        """The client sends pieces of its body."""
        for piece in pieces:
            self.receiver.on_body(piece)
        if ends and not self.has_ended:
            self.receiver.on_end()

    def unblock(self) -> None:
        """All that was sent has left."""
        self.is_blocked = False
        self.receiver.on_writable()

    def break_by(self, by: BrokenBy) -> None:
        """The exchange ends early."""
        if not self.has_ended:
            self.break_off()
            self.receiver.on_broken(by)


class WebEnds:
    """The dialects over one router."""

    def __init__(self, router: FakeRouter | None = None, options: WebOptions | None = None, **prefixes: str) -> None:
        self.router = router or FakeRouter()
        self.metrics = HttpMetrics()
        self.targets = WebTargets(lambda *_: self.router, self.metrics, options)
        self.web = WebDialect(self.targets)
        self.websockets = WebSocketDialect(self.targets)
        self.targets.set_routes(read_routes(web_table(**(prefixes or {"shop": "/"}))))

    @property
    def call(self) -> OutgoingCall:
        return self.router.calls[-1]

    def open(self, head: HttpHead, *, is_complete: bool | None = None) -> WebExchange:
        """A request arrives."""
        exchange = WebExchange(head)
        exchange.accept(self.web.open(exchange), is_complete=is_complete)
        return exchange

    def open_websocket(self, head: HttpHead) -> WebExchange:
        """A handshake arrives."""
        exchange = WebExchange(head)
        exchange.accept(self.websockets.open(exchange), is_complete=False)
        return exchange

    def count(self, *labels: str) -> float:
        """How many requests ended with application, route, method and status."""
        return sum(each.value for each in self._samples("mesh_gateway_http_requests_total", labels))

    def latencies(self, *labels: str) -> int:
        samples = self._samples("mesh_gateway_http_request_latency_seconds", labels)
        return sum(sum(each.buckets) for each in samples)

    def assert_idle(self) -> None:
        assert self.metrics.in_flight.count == 0

    def _samples(self, family: str, labels: tuple[str, ...]) -> list[Sample]:
        return [
            sample
            for each, samples in self.metrics.collect()
            for sample in samples
            if each.name == family and sample.label_values == labels
        ]


def sent_request(call: OutgoingCall) -> web_pb2.WebRequest:
    """What the replica gets with the Open."""
    assert call.request.payload is not None
    return decode_request(bytes(call.request.payload.data))


def respond(
    call: OutgoingCall, body: bytes = b"", status: int = 200, route: str = "", headers: tuple[bytes, ...] = ()
) -> None:
    """The replica answers in one piece."""
    pairs = list(zip(headers[::2], headers[1::2], strict=True))
    finish(call, Outcome(payload=raw(encode_response(status, pairs, body, route))))


def begin_response(call: OutgoingCall, body: bytes = b"", status: int = 200, headers: tuple[bytes, ...] = ()) -> None:
    """The replica sends the head of a streamed answer."""
    pairs = list(zip(headers[::2], headers[1::2], strict=True))
    item(call, encode_response(status, pairs, body))


def fail(call: OutgoingCall, error: MeshException) -> None:
    finish(call, failed(error))


def web_request(
    method: str = "GET", path: str = "/", body_bytes: int | None = 0, query: bytes = b"", **headers: str
) -> HttpHead:
    """A head. `body_bytes`: None for a body of unknown length; "_" in names of headers stands for "-"."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HttpHead(
        method=method,
        path=path,
        query=query,
        fields=[(b"host", b"shop.example"), *fields],
        peer="ipv4:10.0.0.1:4711",
        content_length=body_bytes,
        has_body=body_bytes != 0,
    )


def websocket_request(path: str = "/", **headers: str) -> HttpHead:
    """A handshake by HTTP/1.1."""
    fields = {
        "sec_websocket_version": "13",
        "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    }
    head = HttpHead(
        method="GET",
        path=path,
        fields=[(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()],
        peer="ipv4:10.0.0.1:4711",
    )
    return replace(head, scheme="ws")
