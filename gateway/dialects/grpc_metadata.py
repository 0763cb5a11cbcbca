"""The invocation metadata of a gRPC client, read for the mesh.

Everything but gRPC's own keys is passed on, so a servicer sees what its client sent. The listener limits the size with
`grpc.max_metadata_size`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mesh.wire.request_context import RequestContext, new_request_id

REQUEST_ID_KEY = "request_id"

_REQUEST_ID_MAX_CHARS = 200
_RESERVED_PREFIX = "grpc-"

Entry = tuple[str, str | bytes]


class Invocation(NamedTuple):
    """The metadata of one call."""

    application: str | None
    """The application that the client named."""
    context: RequestContext
    """`route` and `app` are set when the method is known."""
    passed_on: tuple[Entry, ...]


def read_invocation(entries: Iterable[Entry]) -> Invocation:
    """Read the metadata of one call. Its request id is new if the client sent none that gRPC can return."""
    application: str | None = None
    context = RequestContext("")
    passed_on: list[Entry] = []
    for entry in entries:
        key, value = entry
        if key[:5] == _RESERVED_PREFIX:
            continue
        passed_on.append(entry)
        if isinstance(value, bytes):
            continue
        match key:
            case "application":
                application = value or None
            case "request_id":
                context.request_id = value if _is_returnable(value) else ""
            case "multiplexed_model_id":
                context.multiplexed_model_id = value
            case "traceparent":
                context.traceparent = value
            case "tracestate":
                context.tracestate = value
    if not context.request_id:
        context.request_id = new_request_id()
    return Invocation(application, context, tuple(passed_on))


def _is_returnable(request_id: str) -> bool:
    """Whether gRPC can send it back as metadata. If it could not, the call would end without a status."""
    return len(request_id) <= _REQUEST_ID_MAX_CHARS and request_id.isascii() and request_id.isprintable()
