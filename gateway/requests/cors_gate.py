"""`CorsGate`: in front of all dialects. It answers preflights, and lets pages of other origins read answers."""

from __future__ import annotations

from collections.abc import Callable

from gateway.requests.cors import CorsPolicy, is_preflight
from gateway.requests.exchange import Caller, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from mesh.http2.limits import BufferShare

OpenExchange = Callable[[Exchange], ExchangeReceiver | None]

_OFF = (
    "CORS is off at this gateway, so pages of other origins cannot call its methods."
    " Turn it on with mesh.start(http_options={{'cors': {{'origins': [{origin!r}]}}}}).\n"
)
_ORIGIN_SHOWN_CHARS = 100


class CorsGate:
    """Without a policy, requests of pages are left to the dialects; web applications may know what to do with them."""

    def __init__(self, policy: CorsPolicy | None, has_method: Callable[[str], bool], pass_on: OpenExchange) -> None:
        """`has_method`: whether a path is that of a typed method. `pass_on`: the dialects."""
        self.policy = policy
        self._has_method = has_method
        self._pass_on = pass_on

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of an exchange; None if it has been answered."""
        head = exchange.head
        origin = head.by_name.get(b"origin")
        if origin is None or head.is_websocket:
            return self._pass_on(exchange)
        if self.policy is None:
            if is_preflight(head) and self._has_method(head.path):
                text = _OFF.format(origin=origin[:_ORIGIN_SHOWN_CHARS].decode("latin-1"))
                answer(exchange, 403, [(b"content-type", b"text/plain; charset=utf-8")], text.encode())
                return None
            return self._pass_on(exchange)
        if is_preflight(head):
            answer(exchange, 204, self.policy.answer_preflight(head), b"")
            return None
        return self._pass_on(_CorsExchange(exchange, self.policy, origin))


class _CorsExchange:
    """An exchange with a page of another origin: the head of its answer says whether the page may read it."""

    __slots__ = ("_exchange", "_origin", "_policy", "caller")

    def __init__(self, exchange: Exchange, policy: CorsPolicy, origin: bytes) -> None:
        self.caller: Caller | None = None
        self._exchange = exchange
        self._policy = policy
        self._origin = origin

    @property
    def head(self) -> HttpHead:
        return self._exchange.head

    @property
    def share(self) -> BufferShare:
        return self._exchange.share

    @property
    def is_blocked(self) -> bool:
        return self._exchange.is_blocked

    @property
    def has_sent_head(self) -> bool:
        return self._exchange.has_sent_head

    @property
    def has_ended(self) -> bool:
        return self._exchange.has_ended

    def send_head(self, status: int, fields: Fields) -> None:
        self._exchange.send_head(status, self._with_cors(fields))

    def send_body(self, data: bytes | memoryview) -> bool:
        return self._exchange.send_body(data)

    def end(self, trailers: Fields | None = None) -> None:
        self._exchange.end(trailers)

    def send_whole(self, status: int, fields: Fields, body: bytes | memoryview) -> bool:
        return self._exchange.send_whole(status, self._with_cors(fields), body)

    def give_room(self, size: int) -> None:
        self._exchange.give_room(size)

    def open_tunnel(self, fields: Fields) -> None:
        self._exchange.open_tunnel(fields)

    def abort(self) -> None:
        self._exchange.abort()

    def _with_cors(self, fields: Fields) -> Fields:
        return [*fields, *self._policy.response_fields(self._origin, fields)]
