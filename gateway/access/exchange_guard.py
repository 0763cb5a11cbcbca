"""Authentication of the HTTP requests of a gateway, before any dialect sees them.

A ready-made check answers at once, and the dialect opens the exchange as it would without a guard. While the user's
function decides, `AwaitingCaller` receives the exchange and gives no room for more of the body than was there before;
then it passes everything on to the receiver that the dialect has made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.access.authenticator import Authenticator, repeats_credentials
from gateway.access.user_check import PendingCheck
from gateway.requests.cors import is_preflight
from gateway.requests.dialect_list import CHALLENGE, answer_json, retry_after_field
from gateway.requests.exchange import UNHEARD, BrokenBy, Exchange, ExchangeReceiver, Fields, HttpHead, fail
from gateway.requests.mesh_headers import request_id_of
from gateway.requests.routes import Refusal
from gateway.requests.web_status import NO_ROOM
from mesh.authentication import ClientRequest
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED
from mesh.wire.identity import Identity

logger = logging.getLogger("mesh.gateway")

OpenAs = Callable[[Identity | None], ExchangeReceiver | None]
"""Gives an exchange of this client its receiver; None if it has been answered."""
RefuseAs = Callable[[Exchange, Refusal], bool]
"""Answers an exchange in the form of its dialect; False if that has none of its own."""

_STATUS = {7: 403, 8: 429, 14: 503, 16: 401}
"""By the code of gRPC; what else a function says is 403."""
_FORBIDDEN = 403
_UNAUTHORIZED = 401
_OF_PREFLIGHT = (
    " Browsers ask without credentials what pages of other origins may send: let the gateway answer them, by"
    " mesh.start(http_options={'cors': ...})."
)
_NO_ROOM = Refusal(RESOURCE_EXHAUSTED, NO_ROOM.text)


def open_for_caller(
    authenticator: Authenticator,
    exchange: Exchange,
    open_as: OpenAs,
    refuse_as: RefuseAs,
) -> ExchangeReceiver | None:
    """Find out who sends the exchange, and open it with `open_as`; or answer that it may not be sent."""
    waiting = AwaitingCaller(exchange, open_as, refuse_as)
    fields = exchange.head.fields
    is_ambiguous = repeats_credentials([name.decode("latin-1") for name, _ in fields])
    found = authenticator.identify(client_request(exchange.head), waiting.decide, is_ambiguous=is_ambiguous)
    if isinstance(found, PendingCheck):
        waiting.check = found
        return waiting
    if isinstance(found, Refusal):
        refuse_exchange(exchange, found, refuse_as)
        return None
    return open_as(found)


def client_request(head: HttpHead) -> ClientRequest:
    """The head as authentication functions see it."""
    metadata = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.fields}
    return ClientRequest(
        path=head.path, http_method=head.method, metadata=metadata, peer=head.peer, certificate=head.certificate
    )


def refuse_exchange(exchange: Exchange, refusal: Refusal, refuse_as: RefuseAs) -> None:
    """Answer in the form of the dialect, or else with an HTTP status and the same JSON as the JSON dialect."""
    if refuse_as(exchange, refusal):
        return
    status = _STATUS.get(refusal.code, _FORBIDDEN)
    more: Fields = [(b"x-request-id", request_id_of(exchange.head.fields).encode())]
    if status == _UNAUTHORIZED:
        more.append(CHALLENGE)
    message = refusal.message
    if is_preflight(exchange.head):
        # Anyone can send what looks like one, so it is let through to user code no more than other requests.
        message += _OF_PREFLIGHT
    if refusal.retry_after_s is not None:
        more.append(retry_after_field(refusal.retry_after_s))
    answer_json(exchange, status, {"code": refusal.code, "message": message, "details": []}, more)


class AwaitingCaller:
    """Receives an exchange until it is known who sends it; from then on it passes on what comes."""

    def __init__(self, exchange: Exchange, open_as: OpenAs, refuse_as: RefuseAs) -> None:
        self._exchange = exchange
        self._open_as = open_as
        self._refuse_as = refuse_as
        self.check: PendingCheck | None = None
        self._receiver: ExchangeReceiver | None = None
        self._received: list[bytes] = []
        """Its room is not given back: of one exchange it is bounded by what a client may send in advance."""
        self._held_bytes = 0
        """Bytes of what was received, as counted in what the gateway buffers."""
        self._is_complete = False

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_body(data)
        elif self._exchange.share.has_room(len(data)):
            self._exchange.share.add(len(data))
            self._held_bytes += len(data)
            self._received.append(data)
        else:
            self._stop()
            refuse_exchange(self._exchange, _NO_ROOM, self._refuse_as)

    def on_end(self) -> None:
        if self._receiver is not None:
            self._receiver.on_end()
        else:
            self._is_complete = True

    def on_broken(self, by: BrokenBy) -> None:
        if self._receiver is not None:
            self._receiver.on_broken(by)
        else:
            self._stop()

    def on_writable(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable()

    def decide(self, answer: Identity | Refusal) -> None:
        """Open the exchange with all that has come, or refuse it."""
        self.check = None
        received = self._stop()
        if isinstance(answer, Refusal):
            refuse_exchange(self._exchange, answer, self._refuse_as)
            return
        try:
            self._pass_on(answer, received)
        except Exception:
            logger.exception("a request of %s was not accepted", self._exchange.head.path)
            fail(self._exchange, self._receiver or UNHEARD)

    def _pass_on(self, identity: Identity, received: list[bytes]) -> None:
        exchange = self._exchange
        receiver = self._receiver = self._open_as(identity) or UNHEARD
        for data in received:
            if not exchange.has_ended:
                receiver.on_body(data)
        if self._is_complete and not exchange.has_ended:
            receiver.on_end()

    def _stop(self) -> list[bytes]:
        """Wait no longer. Returns what has come."""
        if self.check is not None:
            self.check.cancel()
            self.check = None
        self._exchange.share.add(-self._held_bytes)
        self._held_bytes = 0
        received, self._received = self._received, []
        return received
