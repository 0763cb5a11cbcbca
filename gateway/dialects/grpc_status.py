"""The metadata of a gRPC response and the details of its status, checked and cut to what the wire can carry.

gRPC does not send illegal metadata, and clients refuse trailers that are too large; in both cases the client would not
see the status. Both are checked here, where the answer can still be a status that explains the error.
"""

from __future__ import annotations

import re
from math import ceil

from gateway.dialects.grpc_metadata import REQUEST_ID_KEY
from gateway.ops.grpc_metrics import MethodStats
from gateway.requests.routes import Refusal
from mesh.http2.stream import Stream
from mesh.rpc.answers import answer_status
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.status_details import DETAILS_KEY
from mesh.settings import settings
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.request_context import new_request_id

_DETAILS_MAX_WIRE_BYTES = 5 * 1024
"""Details are percent-encoded, up to 12 bytes per character; clients refuse trailers above 8 KiB in total."""

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Tells clients that retry when to do so (gRPC docs, retry design)."""

_KEY = re.compile(r"[0-9a-z_.-]+")
_OF_HTTP = re.compile(r"connection|content-(length|type)|host|keep-alive|proxy-connection|te|transfer-encoding|upgrade")
"""Headers that HTTP/2 forbids or that gRPC sends itself."""
_TEXT = re.compile(r"[\x20-\x7e]*")


def trailing_metadata(request_id: str, outcome: Outcome) -> tuple[Entry, ...]:
    """The request id and the trailers of user code. Raises ValueError with an entry that gRPC cannot carry."""
    own = (REQUEST_ID_KEY, request_id)
    if not outcome.trailers:
        return (own,)
    return (own, *(_entry("trailing", key, value) for key, value in outcome.trailers if key != REQUEST_ID_KEY))


def initial_metadata(entries: Trailers) -> tuple[Entry, ...]:
    """The initial metadata of user code. Raises ValueError with an entry that gRPC cannot carry."""
    return tuple(_entry("initial", key, value) for key, value in entries)


def fit_details(message: str) -> str:
    """`message`, cut to the maximum size of status details."""
    message = message[: settings().payload.error_details_max_chars]
    if 12 * len(message) <= _DETAILS_MAX_WIRE_BYTES:
        return message
    wire_bytes = 0
    for position, character in enumerate(message):
        is_plain = " " <= character <= "~" and character != "%"
        wire_bytes += 1 if is_plain else 3 * len(character.encode("utf-8", "replace"))
        if wire_bytes > _DETAILS_MAX_WIRE_BYTES:
            return message[:position]
    return message


def refuse(stream: Stream, refusal: Refusal, stats: MethodStats, request_id: str) -> None:
    """Answer a call that no method serves."""
    stats.started += 1
    stats.end(refusal.code, 0.0)
    entries = trailing_metadata(request_id or new_request_id(), Outcome())
    if refusal.retry_after_s is not None:
        entries = (*entries, (_PUSHBACK_KEY, str(ceil(refusal.retry_after_s * 1000))))
    answer_status(stream, refusal.code, fit_details(refusal.message), entries)


def _entry(kind: str, key: str, value: bytes) -> Entry:
    if not _KEY.fullmatch(key) or (key.startswith("grpc-") and key != DETAILS_KEY) or _OF_HTTP.fullmatch(key):
        raise ValueError(
            f"User code set {kind} metadata {key!r}. Keys are lower-case letters, digits, '_', '-' and '.', "
            "do not start with 'grpc-' and are not headers of HTTP itself."
        )
    if key.endswith("-bin"):
        return key, value
    text = value.decode("utf-8", "replace")
    if not _TEXT.fullmatch(text):
        raise ValueError(
            f"User code set {kind} metadata {key!r} to a value that is not printable ASCII. "
            "Give a key that ends in '-bin' to send other bytes."
        )
    return key, text
