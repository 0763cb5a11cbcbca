"""A dialect whose messages are lines, and a scene of one call of it: an exchange, a route and a fake router."""

from __future__ import annotations

from collections.abc import Callable

from gateway.dialects.grpc_metadata import read_invocation
from gateway.dialects.method_call import CallEnd, MethodCall
from gateway.dialects.method_lookup import ServedMethods
from gateway.dialects.request_flow import RequestFlow
from gateway.dialects.served_method import ServedMethod
from gateway.ops.grpc_metrics import GrpcMetrics
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import INTERNAL
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.gateway.fakes import FakeRouter, routes_of


class LineReader:
    """Messages that end with a newline; "!" is none."""

    def __init__(self) -> None:
        self._kept = b""
        self._has_ended = False

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        return False

    def feed(self, data: bytes) -> None:
        self._kept += data

    def end(self) -> None:
        self._has_ended = True

    def next_message(self) -> bytes | None:
        line, newline, rest = self._kept.partition(b"\n")
        if line == b"!":
            raise MessageError(INTERNAL, "no message")
        if not newline:
            if line and self._has_ended:
                raise MessageError(INTERNAL, "not complete")
            return None
        self._kept = rest
        return line


class LineDialect:
    """The smallest dialect: lines in, lines out."""

    def __init__(self, exchange: FakeExchange, method: ServedMethod, timeout_s: float | None = None) -> None:
        self.exchange = exchange
        invocation = read_invocation([("request_id", "r1"), ("x-tenant", "t")])
        self.call = MethodCall(exchange, method, self, invocation, timeout_s=timeout_s)
        self.flow = RequestFlow(exchange, self.call, LineReader())
        self.ends: list[CallEnd] = []
        self.initial: tuple[Entry, ...] = ()
        self.flow.begin()

    def on_body(self, data: bytes) -> None:
        self.flow.on_body(data)

    def on_end(self) -> None:
        self.flow.on_end()

    def on_broken(self, by: object) -> None:
        self.call.cancel()

    def on_writable(self) -> None:
        self.call.grant()

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        self.initial = entries

    def on_message(self, message: bytes | memoryview) -> bool:
        if not self.exchange.has_sent_head:
            self.exchange.send_head(200, [])
        return self.exchange.send_body(bytes(message) + b"\n")

    def on_request_room(self) -> None:
        self.flow.on_room()

    def on_status(self, end: CallEnd) -> int | None:
        self.ends.append(end)
        if self.exchange.has_sent_head:
            self.exchange.end()
        elif not self.exchange.send_whole(200 if end.is_ok else 500, [], bytes(end.response or b"")):
            return None
        return end.code


class Scene:
    """One call of a method."""

    def __init__(
        self,
        full_name: str,
        router: FakeRouter,
        *,
        timeout_s: float | None = None,
        own_timeout_s: float | None = None,
        budget_bytes: float = float("inf"),
        dialect: type[LineDialect] = LineDialect,
    ) -> None:
        self.metrics = GrpcMetrics()
        methods = ServedMethods(lambda *_: router, self.metrics, timeout_s=own_timeout_s)
        methods.message_max_bytes = 1000
        methods.set_routes(routes_of("shop"))
        method = methods.find("shop", full_name)
        assert isinstance(method, ServedMethod)
        self.method = method
        self.router = router
        self.exchange = FakeExchange(request(full_name), budget_bytes)
        self.dialect = dialect(self.exchange, method, timeout_s)

    @property
    def mesh_call(self) -> OutgoingCall:
        return self.router.calls[0]

    @property
    def end(self) -> CallEnd:
        (end,) = self.dialect.ends
        return end

    def leave(self) -> None:
        """The client goes away."""
        self.exchange.break_off()
        self.dialect.on_broken(None)

    def assert_counted_once(self, code: int) -> None:
        assert self.dialect.call.is_over
        assert self.method.stats.started == sum(self.method.stats.codes) == self.method.stats.codes[code] == 1
        assert self.metrics.in_flight.count == 0
        assert self.exchange.share.used_bytes == 0
