"""The HTTP status of a web request that failed.

Only errors of the mesh itself are explained to clients. What user code raises is its own affair: 500, and the log of
its replica has the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gateway.requests.exchange import TEXT, BrokenBy, Exchange, Fields
from mesh.rpc import status_codes
from mesh.wire.outcome import USUAL_BACKPRESSURE, BackpressureAnswer, Outcome

CLIENT_LEFT = 499
"""Is counted and logged; there is no client left that could get it."""
TIMED_OUT = 408
INTERNAL_ERROR = 500
STATUS_WHEN_BROKEN = {
    BrokenBy.CLIENT: CLIENT_LEFT,
    BrokenBy.PROTOCOL: 400,
    BrokenBy.TIMEOUT: TIMED_OUT,
    BrokenBy.DRAIN: 503,
}
"""How requests count that break off."""

_USERS_OWN = frozenset({"GrpcStatusError", "PayloadTooLargeError", "RemoteError"})
"""Exceptions whose code says nothing about the mesh."""


class WebFailure(NamedTuple):
    """An answer of the gateway's own."""

    status: int
    text: str
    fields: tuple[tuple[bytes, bytes], ...] = ()

    def answer(self, request_id: str) -> tuple[int, Fields, bytes]:
        """Status, header fields and body."""
        fields = [
            TEXT,
            (b"x-request-id", request_id.encode()),
            *self.fields,
        ]
        return self.status, fields, self.text.encode()


INTERNAL = WebFailure(INTERNAL_ERROR, "Internal Server Error")
NO_ROOM = WebFailure(
    503,
    "This gateway buffers as many bytes as MESH_GATEWAY_BUFFER_MAX_BYTES allows, or this connection its part of them."
    " Retry later, or with smaller messages.",
    ((b"retry-after", b"1"),),
)


def send_failure(exchange: Exchange, failure: WebFailure, request_id: str) -> None:
    """Answer with it; break the exchange if even that finds no room."""
    if not exchange.send_whole(*failure.answer(request_id)):
        exchange.abort()


def timed_out(request_id: str, timeout_s: float) -> WebFailure:
    """The request took longer than its timeout."""
    return WebFailure(TIMED_OUT, timeout_text(request_id, timeout_s))


def timeout_text(request_id: str, timeout_s: float) -> str:
    """What a client reads of a timeout that was not its own."""
    return f"Request {request_id} timed out after {timeout_s:g}s."


def too_large(limit_bytes: int) -> WebFailure:
    return WebFailure(
        413, f"The body of the request is larger than the {limit_bytes} bytes of MESH_GATEWAY_HTTP_BODY_MAX_BYTES."
    )


def failure_of(outcome: Outcome, request_id: str, timeout_s: float) -> WebFailure:
    """The answer to a request whose call has failed. `timeout_s`: infinite if it has none."""
    if outcome.exception_type in _USERS_OWN:
        return INTERNAL
    match outcome.code:
        case status_codes.DEADLINE_EXCEEDED if timeout_s < math.inf and not outcome.remote_traceback:
            return timed_out(request_id, timeout_s)
        case status_codes.RESOURCE_EXHAUSTED:
            answer = outcome.backpressure or USUAL_BACKPRESSURE
            return WebFailure(answer.status_code, _text(outcome), retry_after(answer))
        case status_codes.UNAVAILABLE | status_codes.CANCELLED:
            return WebFailure(503, _text(outcome))
    return INTERNAL


def retry_after(answer: BackpressureAnswer) -> tuple[tuple[bytes, bytes], ...]:
    """The header field that tells when to retry, in whole seconds, if there is one."""
    if answer.retry_after_s is None:
        return ()
    return ((b"retry-after", b"%d" % math.ceil(answer.retry_after_s)),)


def _text(outcome: Outcome) -> str:
    """The message of an error of the mesh, without the name of its class, which it has if user code passed it on."""
    return outcome.message.removeprefix(f"{outcome.exception_type}: ")
