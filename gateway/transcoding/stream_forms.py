"""Streamed responses as text: one JSON array, JSON lines, or server-sent events, as the client accepts.

A call that fails after its stream began has no HTTP status left: the last item is then an object with the key "error",
and of server-sent events one called `error`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

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

_FORMS: dict[str, tuple[StreamForm, ...]] = {
    "application/json": (JSON_ARRAY,),
    "text/event-stream": (SERVER_SENT_EVENTS,),
    "application/*": (JSON_ARRAY, JSON_LINES),
    "text/*": (SERVER_SENT_EVENTS,),
    "*/*": (JSON_ARRAY, JSON_LINES, SERVER_SENT_EVENTS),
} | {each: (JSON_LINES,) for each in LINE_TYPES}
"""What each media range accepts, the one first that is sent if the client does not mind."""

_KEPT_MAX = 128


@lru_cache(_KEPT_MAX)
def stream_form(accept: str) -> StreamForm | None:
    """The form that a client prefers, by its `accept` field; None if it accepts none of them.

    Of the ranges that a form fits, the most specific one says its weight (RFC 9110 §12.5.1). Of forms with equal
    weights the one wins that is named more specifically, then the one that is named first.
    """
    said: dict[StreamForm, tuple[int, float]] = {}
    for part in (accept or "*/*").split(","):
        media_range, *parameters = (each.strip().lower() for each in part.split(";"))
        here = -media_range.count("*"), _weight(parameters)
        for form in _FORMS.get(media_range, ()):
            if form not in said or here > said[form]:
                said.pop(form, None)
                said[form] = here
    best = max(said, key=lambda form: said[form][::-1], default=None)
    return best if best is not None and said[best][1] > 0 else None


def _weight(parameters: list[str]) -> float:
    for each in parameters:
        if each.startswith("q="):
            return float(each[2:]) if _WEIGHT(each[2:]) else 0.0
    return 1.0
