"""Streamed responses as text: one JSON array, JSON lines, or server-sent events, as the client accepts.

A call that fails after its stream began has no HTTP status left: the last item is then an object with the key "error",
and of server-sent events one called `error`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WEIGHT = re.compile(r"[01]?\.[0-9]{1,9}|[01]\.?").fullmatch
"""As RFC 9110 §12.4.2 has them, and as old clients write them: ".2"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamForm:
    """How the items of a stream are written."""

    content_type: str
    first: bytes = b""
    """In front of the first item."""
    next: bytes = b""
    """In front of every other item."""
    after: bytes = b""
    """Behind every item."""
    end: bytes = b""
    """Behind the last item of a stream that went well."""
    empty: bytes = b""
    """A stream without items that went well."""
    error_start: bytes
    """In front of the status of a stream that failed behind its first item."""
    error_end: bytes

    def item(self, text: bytes, *, is_first: bool) -> bytes:
        """`text`: JSON on one line."""
        return (self.first if is_first else self.next) + text + self.after

    def error(self, status: bytes) -> bytes:
        """The end of a stream that failed behind its first item. `status`: a google.rpc.Status as JSON."""
        return self.error_start + status + self.error_end


JSON_ARRAY = StreamForm(
    content_type="application/json",
    first=b"[",
    next=b",\n",
    end=b"]",
    empty=b"[]",
    error_start=b',\n{"error":',
    error_end=b"}]",
)
JSON_LINES = StreamForm(content_type="application/x-ndjson", after=b"\n", error_start=b'{"error":', error_end=b"}\n")
SERVER_SENT_EVENTS = StreamForm(
    content_type="text/event-stream",
    first=b"data: ",
    next=b"data: ",
    after=b"\n\n",
    end=b"event: end\ndata: {}\n\n",
    empty=b"event: end\ndata: {}\n\n",
    error_start=b"event: error\ndata: ",
    error_end=b"\n\n",
)
"""A page closes its EventSource at the event `end` or `error`; else the browser would call the method again."""

LINE_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
"""Content types with a message per line."""

_FORMS = {
    "application/json": JSON_ARRAY,
    "application/*": JSON_ARRAY,
    "*/*": JSON_ARRAY,
    "text/event-stream": SERVER_SENT_EVENTS,
    "text/*": SERVER_SENT_EVENTS,
} | dict.fromkeys(LINE_TYPES, JSON_LINES)


def stream_form(accept: str) -> StreamForm | None:
    """The form that a client prefers, by its `accept` field; None if it accepts none of them."""
    best, best_weight = None, 0.0
    for part in (accept or "*/*").split(","):
        media_type, *parameters = (each.strip().lower() for each in part.split(";"))
        form, weight = _FORMS.get(media_type), _weight(parameters)
        if form is not None and weight > best_weight:
            best, best_weight = form, weight
    return best


def _weight(parameters: list[str]) -> float:
    for each in parameters:
        if each.startswith("q="):
            return float(each[2:]) if _WEIGHT(each[2:]) else 0.0
    return 1.0
