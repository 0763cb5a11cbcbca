"""Stands before the HTTP requests of a gateway, whatever their dialect: who sends them?

A ready-made check answers at once, and the dialect opens the exchange as it would without a guard. While the user's
function decides, `AwaitingCaller` receives the exchange and gives no room for more of the body than was there before;
then it passes everything on to the receiver that the dialect has made.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from gateway.access.authenticator import Authenticator
from gateway.access.user_check import PendingCheck
from gateway.requests.cors import is_preflight
from gateway.requests.dialect_list import answer_json
from gateway.requests.exchange import BrokenBy, Exchange, ExchangeReceiver, Fields, HttpHead
from gateway.requests.routes import Refusal
from mesh.authentication import ClientRequest
from mesh.wire.identity import Identity

Open = Callable[[Exchange], ExchangeReceiver | None]
"""Gives an exchange its receiver; None if it has been answered."""

_STATUS = {7: 403, 8: 429, 14: 503, 16: 401}
"""By the code of gRPC; what else a function says is 403."""
_FORBIDDEN = 403
_UNAUTHORIZED = 401


def open_for_caller(
    authenticator: Authenticator,
    exchange: Exchange,
    open_as: Callable[[Identity | None], ExchangeReceiver | None],
) -> ExchangeReceiver | None:
    """Find out who sends the exchange, and open it with `open_as`; or answer that it may not be sent."""
    head = exchange.head
    if is_preflight(head):
        # A browser asks what pages may send, which it does without credentials (Fetch §4.8).
        return open_as(None)
    waiting = AwaitingCaller(exchange, open_as)
    answer = authenticator.identify(client_request(head), waiting.decide)
    if isinstance(answer, PendingCheck):
        waiting.check = answer
        return waiting
    if isinstance(answer, Refusal):
        refuse_exchange(exchange, answer)
        return None
    return open_as(answer)


def client_request(head: HttpHead) -> ClientRequest:
    """The head as authentication functions see it."""
    metadata = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.fields}
    return ClientRequest(
        path=head.path, http_method=head.method, metadata=metadata, peer=head.peer, certificate=head.certificate
    )


def refuse_exchange(exchange: Exchange, refusal: Refusal) -> None:
    """Answer with the status, and the same JSON as the JSON dialect, which other dialects read by the status."""
    status = _STATUS.get(refusal.code, _FORBIDDEN)
    more: Fields = [(b"www-authenticate", b"Bearer")] if status == _UNAUTHORIZED else []
    if refusal.retry_after_s is not None:
        more.append(retry_after_field(refusal.retry_after_s))
    answer_json(exchange, status, {"code": refusal.code, "message": refusal.message, "details": []}, more)


def retry_after_field(seconds: float) -> tuple[bytes, bytes]:
    """In whole seconds, as HTTP has it."""
    return b"retry-after", b"%d" % max(1, ceil(seconds))


class AwaitingCaller:
    """Receives an exchange until it is known who sends it; from then on it passes on what comes."""

    def __init__(self, exchange: Exchange, open_as: Callable[[Identity | None], ExchangeReceiver | None]) -> None:
        self._exchange = exchange
        self._open_as = open_as
        self.check: PendingCheck | None = None
        self._receiver: ExchangeReceiver | None = None
        self._received: list[bytes] = []
        """Its room is not given back: it is bounded by what a client may send in advance."""
        self._is_complete = False

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_body(data)
        else:
            self._received.append(data)

    def on_end(self) -> None:
        if self._receiver is not None:
            self._receiver.on_end()
        else:
            self._is_complete = True

    def on_broken(self, by: BrokenBy) -> None:
        if self._receiver is not None:
            self._receiver.on_broken(by)
        elif self.check is not None:
            self.check.cancel()
            self._received.clear()

    def on_writable(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable()

    def decide(self, answer: Identity | Refusal) -> None:
        """Open the exchange with all that has come, or refuse it."""
        exchange, received = self._exchange, self._received
        self.check, self._received = None, []
        if isinstance(answer, Refusal):
            refuse_exchange(exchange, answer)
            return
        receiver = self._receiver = self._open_as(answer) or _IGNORED
        for data in received:
            if not exchange.has_ended:
                receiver.on_body(data)
        if self._is_complete and not exchange.has_ended:
            receiver.on_end()


class _Ignored:
    """The receiver of an exchange that has been answered."""

    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_broken(self, by: BrokenBy) -> None: ...
    def on_writable(self) -> None: ...


_IGNORED = _Ignored()
