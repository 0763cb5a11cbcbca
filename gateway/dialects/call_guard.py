"""`CallGuard`: finds out which client makes a call, and whether that client may make one more now.

Ready-made checks answer at once, and the call goes on as it would without a guard. While the user's function decides,
`AwaitingIdentity` receives the stream: it keeps what the client sends, within the stream's window and the gateway's
buffer, and hands it to the call that begins then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.access.authenticator import Authenticator, repeats_credentials
from gateway.access.call_limits import CallLimits
from gateway.access.exchange_guard import open_for_caller
from gateway.access.user_check import PendingCheck
from gateway.dialects.caller_methods import CallerMethods, KnownCaller
from gateway.dialects.grpc_metadata import ClientHead
from gateway.dialects.served_method import NO_ROOM, CallCount
from gateway.requests.dialect_list import DialectList
from gateway.requests.exchange import Exchange, ExchangeReceiver
from gateway.requests.routes import Refusal
from mesh.authentication import ClientRequest
from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.stream import UNHEARD, Receiver, Stream, end_failed
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED
from mesh.wire.identity import Identity

GoOn = Callable[[Identity | Refusal | None], Receiver | None]
"""Begins the call of an identity, or answers the refusal; returns the receiver, or None if it has answered."""

_NO_ROOM = Refusal(RESOURCE_EXHAUSTED, NO_ROOM)


class CallGuard:
    """I/O loop only."""

    def __init__(self, authenticator: Authenticator | None, limits: CallLimits | None, in_flight: CallCount) -> None:
        """`authenticator` None: no client is asked. `in_flight` counts the calls that wait for its answer."""
        self._authenticator = authenticator
        self._in_flight = in_flight
        self.methods = CallerMethods(limits)

    def open(self, exchange: Exchange, dialects: DialectList) -> ExchangeReceiver | None:
        """The same for a request that is not gRPC: its dialect opens it now, or once the client is identified."""

        def open_as(identity: Identity | None) -> ExchangeReceiver | None:
            exchange.caller = KnownCaller(
                self.methods, identity, exchange.head.peer, is_stranger=self.is_stranger(identity)
            )
            return dialects.accept(exchange)

        if self._authenticator is None:
            return open_as(None)
        return open_for_caller(self._authenticator, exchange, open_as, dialects.refuse)

    def is_stranger(self, identity: Identity | None) -> bool:
        """Whether that of a client which was let in says that it is not known: the path is open."""
        return identity is None and self._authenticator is not None

    def accept(self, stream: Stream, head: ClientHead, peer: str, go_on: GoOn) -> Receiver | None:
        """Let the call go on, now or when it is known who calls. Returns what receives the stream until then."""
        if self._authenticator is None:
            return go_on(None)
        request = ClientRequest(
            path=head.path,
            metadata=dict(head.metadata),
            peer=peer,
            certificate=stream.connection.client_certificate,
        )
        waiting = AwaitingIdentity(stream, go_on, self._in_flight)
        is_ambiguous = repeats_credentials([key for key, _ in head.metadata])
        answer = self._authenticator.identify(request, waiting.decide, is_ambiguous=is_ambiguous)
        if not isinstance(answer, PendingCheck):
            return go_on(answer)
        waiting.begin(answer)
        return waiting


class AwaitingIdentity:
    """Receives the stream of a call while its client is being identified."""

    def __init__(self, stream: Stream, go_on: GoOn, in_flight: CallCount) -> None:
        self._stream = stream
        self._go_on = go_on
        self._in_flight = in_flight
        self._check: PendingCheck | None = None
        self._received: list[bytes] = []
        self._held_bytes = 0
        self._is_complete = False

    def begin(self, check: PendingCheck) -> None:
        self._check = check
        self._in_flight.enter()

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        """Trailers of a request mean nothing in gRPC."""

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        share, size = stream.connection.outbox.share, stop - start
        if not share.has_room(size):
            self._end()
            stream.receiver = UNHEARD
            self._go_on(_NO_ROOM)
            return
        share.add(size)
        self._held_bytes += size
        self._received.append(bytes(data[start:stop]))

    def on_end(self, stream: Stream) -> None:
        self._is_complete = True

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        """The client has left: no answer is needed any more."""
        self._end()

    def on_writable(self, stream: Stream) -> None: ...

    def decide(self, answer: Identity | Refusal) -> None:
        """Begin the call with all that has come, or refuse it."""
        stream, received, is_complete = self._stream, self._received, self._is_complete
        self._end()
        stream.receiver = UNHEARD
        try:
            receiver = self._go_on(answer)
            if receiver is None:
                return
            stream.receiver = receiver
            # Each time the present receiver: the call may end with any of these.
            for data in received:
                if not stream.has_ended:
                    stream.receiver.on_data(stream, data, 0, len(data))
            if is_complete and not stream.has_ended:
                stream.receiver.on_end(stream)
        except Http2Error as fault:
            stream.connection.fail(fault)
        except Exception as error:
            end_failed(stream, error)

    def _end(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
            self._in_flight.leave()
        self._stream.connection.outbox.share.add(-self._held_bytes)
        self._held_bytes = 0
        self._received = []
