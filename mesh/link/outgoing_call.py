"""A call as its caller's process holds it, from submission to outcome. I/O loop only."""

from __future__ import annotations

import itertools
import time
from asyncio import TimerHandle
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mesh.exceptions import CancelReason
from mesh.options.calls.hedge_option import HedgePolicy
from mesh.options.calls.retry_option import RetryPolicy
from mesh.settings import settings
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload
from mesh.wire.request_context import RequestContext

DEADLINE_TIMER_MAX_S = 30 * 86400.0
"""A deadline further away than this gets no timer: event loops do not support much longer delays."""

RESERVE_METHOD = "@reserve"
"""The method of calls that only hold a place; no method of user code has such a name."""

_ANSWER_LEAD_S = 0.02
"""How much earlier a waiting call ends than its deadline, so that its client gets the reason."""
_ROUNDED_S = 0.01
"""For deadlines that travel in whole milliseconds, and the way back."""

_call_ids = itertools.count(1)


def answer_lead_s(remaining_s: float) -> float:
    """How long before its deadline a call that is still queued is answered, `remaining_s` when it is submitted.

    At the deadline itself the reason would reach a gRPC client too late, as the client has given up by then.
    """
    return min(_ANSWER_LEAD_S, remaining_s / 10)


def nested_lead_s(timeout_s: float) -> float:
    """How long before the end of its time a request may fail because a nested call, of the same deadline, did."""
    return answer_lead_s(timeout_s) + _ROUNDED_S


class CallState(Enum):
    QUEUED = "queued"
    """In the router: not sent, or taken back."""
    SENT = "sent"
    """On a link, which still owes a Result."""
    DONE = "done"
    """Its sink has the outcome."""


QUEUED, SENT, DONE = CallState
"""Every call looks at its state several times, and to ask the enum for a member takes ten times as long."""


class CallSink(Protocol):
    """Where a call's responses go. Methods are called on the I/O loop and must not block or raise."""

    def on_item(self, payload: Payload) -> None:
        """One message of a streamed response."""

    def on_credit(self) -> None:
        """More request items may be sent, see OutgoingCall.request_credit."""

    def on_initial_metadata(self, entries: Trailers) -> None:
        """A gRPC method has sent its headers; twice only if the call was sent again."""

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        """A gRPC method has chosen how its messages are compressed; see Compression in replica.proto."""

    def on_done(self, outcome: Outcome) -> None:
        """The call ended. Called exactly once, last."""


class Carrier(Protocol):
    """The link that carries a call. Implemented by link.caller_link."""

    def send_item(self, call: OutgoingCall, payload: Payload) -> None: ...

    def send_half_close(self, call: OutgoingCall) -> None: ...

    def send_credit(self, call: OutgoingCall, credits: int) -> None: ...

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None: ...


@dataclass(slots=True)
class CallRequest:
    """What a call asks of a deployment."""

    method: str
    """A plain name, or "/package.Service/Method" for typed methods."""
    payload: Payload | None
    """None where nothing but the stream is the request."""
    context: RequestContext
    deadline_at_s: float | None = None
    """time.monotonic() instant."""
    streams_request: bool = False
    streams_response: bool = False
    metadata: Sequence[tuple[str, str | bytes]] = ()
    """gRPC invocation metadata."""
    peer: str = ""
    """gRPC peer of the client."""
    prefers_local: bool = False
    """Replicas on the caller's node, then in its zone, are tried first."""
    is_idempotent: bool = False
    """A unary call may be sent again even when it may have run."""
    retry: RetryPolicy | None = None
    queue_timeout_s: float | None = None
    """How long it may wait for a place; None: as long as its deployment says."""
    hedge: HedgePolicy | None = None
    """When a second copy is sent; only for idempotent unary calls."""
    session_id: str = ""
    """Calls with the same one go to the same replica, as long as that has a free place."""
    targets: Sequence[frozenset[str]] | None = None
    """Groups of replicas, the preferred ones first: it goes to no other. None: to any."""
    is_pinned: bool = False
    """Its caller has named the target."""
    is_beyond_limit: bool = False
    """It runs also where no place is free: a broadcast, or a call whose place was reserved."""
    source: str = ""
    """The client's connection, as gRPC names its peer; empty: this process. Sources take turns in the queue."""

    @property
    def is_unary(self) -> bool:
        return not self.streams_request and not self.streams_response


class OutgoingCall:
    """One request with its response(s)."""

    __slots__ = (
        "call_id",
        "failed_attempts",
        "link",
        "request",
        "request_credit",
        "sequence",
        "sink",
        "spills_at_s",
        "started_at_s",
        "state",
        "timer",
        "waited_s",
    )

    def __init__(self, request: CallRequest, sink: CallSink) -> None:
        self.request = request
        self.sink = sink
        self.call_id = next(_call_ids)
        self.state = QUEUED
        self.link: Carrier | None = None
        """While it is queued: the one where it failed before; any other is preferred."""
        self.sequence = 0
        """Order of submission in its router."""
        self.started_at_s = time.monotonic()
        """When it was made, or when the last of its arguments arrived."""
        self.waited_s = 0.0
        """How long it waited in the queue before it was sent."""
        self.failed_attempts = 0
        """Sends to a replica that then drained, whose link broke, or where the call failed."""
        self.timer: TimerHandle | None = None
        self.spills_at_s = 0.0
        """Until then a queued call with a model id waits for a replica that has the model."""
        self.request_credit = 0
        """Request items that may be sent now, see Payload.credits."""

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.call_id} of {self.request.method}, {self.state.name}>"

    def send_item(self, payload: Payload) -> None:
        """Send one request message. Callers must not exceed `request_credit`, which is not checked."""
        if self.link is not None and self.state is SENT:
            self.request_credit -= payload.credits
            self.link.send_item(self, payload)

    def half_close(self) -> None:
        """No more request items follow."""
        if self.link is not None and self.state is SENT:
            self.link.send_half_close(self)

    def grant(self, credits: int) -> None:
        """The consumer took `credits` of response items; let the replica send as many more."""
        if self.link is not None and self.state is SENT:
            self.link.send_credit(self, credits)


def grant_at() -> int:
    """Credit for responses that were passed on is granted again once it is as much as this, together."""
    return max(1, settings().payload.stream_credits // 4)
