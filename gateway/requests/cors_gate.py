"""`CorsGate`: in front of all dialects. It answers preflights, and lets pages of other origins read answers.

Without being asked, browsers open WebSockets and send some bodies for any page. Typed methods do not know of pages, so
those of origins that are not named are refused here, before they have an effect. Web applications decide themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.requests.cors import CorsPolicy, asked_for, is_preflight, is_unasked
from gateway.requests.exchange import TEXT, Caller, Exchange, ExchangeReceiver, Fields, HttpHead, answer
from mesh.http2.limits import BufferShare

OpenExchange = Callable[[Exchange], ExchangeReceiver | None]
CallsMethod = Callable[[HttpHead], bool]

_REFUSED = (
    "Pages of {origin!r} cannot call methods of this gateway."
    " Allow them with mesh.start(http_options={{'cors': {{'origins': [{origin!r}]}}}}).\n"
)
_ORIGIN_SHOWN_CHARS = 100


class CorsGate:
    """Without a policy, requests of pages are left to the dialects; web applications may know what to do with them."""

    def __init__(self, policy: CorsPolicy | None, calls_method: CallsMethod, pass_on: OpenExchange) -> None:
        """`pass_on`: the dialects."""
        self.policy = policy
        self.calls_method = calls_method
        """Whether a request, or a WebSocket, is one of a typed method."""
        self._pass_on = pass_on

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        """The receiver of an exchange; None if it has been answered."""
        head = exchange.head
        origin = head.by_name.get(b"origin")
        if origin is None:
            return self._pass_on(exchange)
        policy = self.policy
        if is_unasked(head) and not (policy and policy.allows(origin)) and self.calls_method(head):
            _refuse(exchange, origin)
            return None
        if head.is_websocket:
            return self._pass_on(exchange)
        if policy is None:
            if is_preflight(head) and self.calls_method(asked_for(head)):
                _refuse(exchange, origin)
                return None
            return self._pass_on(exchange)
        if is_preflight(head):
            answer(exchange, 204, policy.answer_preflight(head), b"")
            return None
        return self._pass_on(self.readable(exchange))

    def readable(self, exchange: Exchange) -> Exchange:
        """The exchange with answers that a page of another origin may read, if the policy lets it."""
        policy, head = self.policy, exchange.head
        origin = head.by_name.get(b"origin")
        if policy is None or origin is None or head.is_websocket:
            return exchange
        return _CorsExchange(exchange, policy, origin)


def _refuse(exchange: Exchange, origin: bytes) -> None:
    text = _REFUSED.format(origin=origin[:_ORIGIN_SHOWN_CHARS].decode("latin-1"))
    answer(exchange, 403, [TEXT], text.encode())


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

    def ask_for_body(self) -> None:
        self._exchange.ask_for_body()

    def let_pause(self, begun_bytes: int = 0) -> None:
        self._exchange.let_pause(begun_bytes)

    def open_tunnel(self, fields: Fields) -> None:
        self._exchange.open_tunnel(fields)

    def abort(self) -> None:
        self._exchange.abort()

    def _with_cors(self, fields: Fields) -> Fields:
        return [*fields, *self._policy.response_fields(self._origin, fields)]
