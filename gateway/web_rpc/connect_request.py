"""What the head of a Connect request says: its form, codec, compression and timeout. Pure."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from gateway.requests.exchange import HttpHead
from mesh.rpc.message_reader import ENCODINGS

PROTO, JSON = "proto", "json"
UNARY_TYPES = {f"application/{codec}": codec for codec in (PROTO, JSON)}
STREAM_TYPES = {f"application/connect+{codec}": codec for codec in (PROTO, JSON)}
OWN_FIELDS = frozenset(
    {
        b"connect-protocol-version",
        b"connect-timeout-ms",
        b"connect-content-encoding",
        b"connect-accept-encoding",
    }
)
_PARAMETERS = frozenset({b"connect", b"encoding", b"message", b"base64", b"compression"})
"""The query parameters of a GET."""
_STREAM_PREFIX = "application/connect+"
_TIMEOUT = re.compile(rb"[0-9]{1,10}").fullmatch
_BASE64 = re.compile(rb"[A-Za-z0-9_-]*={0,2}").fullmatch


class RequestForm(Enum):
    """How a request carries its messages."""

    UNARY = "the body is the message"
    GET = "the query holds the message"
    STREAM = "the body is messages in envelopes"


class UnsupportedEncodingError(ValueError):
    """A compression that cannot be read; the answer is UNIMPLEMENTED with this text."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A request, as far as its head tells."""

    form: RequestForm
    codec: str
    """PROTO or JSON; empty: one that is not served, the answer is 415."""
    encoding: str = ""
    """How its messages are compressed; empty: they are not."""
    accepted: tuple[str, ...] = ()
    """What its client can read."""
    timeout_s: float | None = None
    message: bytes | None = None
    """The message of a GET."""

    @property
    def content_type(self) -> bytes:
        """That of a good answer."""
        prefix = _STREAM_PREFIX if self.form is RequestForm.STREAM else "application/"
        return f"{prefix}{self.codec}".encode()


def is_connect(head: HttpHead) -> bool:
    """Whether a request is one of Connect.

    A POST of JSON that does not name the protocol is not: `curl` sends that, and the dialect for it has more to offer.
    """
    kind = head.content_type
    return (
        kind == "application/proto"
        or kind.startswith(_STREAM_PREFIX)
        or b"connect-protocol-version" in head.by_name
        or (head.method == "GET" and b"connect=v1" in head.query.split(b"&"))
    )


def form_of(head: HttpHead) -> RequestForm:
    if head.content_type.startswith(_STREAM_PREFIX):
        return RequestForm.STREAM
    return RequestForm.GET if head.method == "GET" else RequestForm.UNARY


def read_request(head: HttpHead) -> ConnectRequest:
    """Raises UnsupportedEncodingError, or another ValueError for a request that its sender has to correct."""
    version = head.by_name.get(b"connect-protocol-version", b"1")
    if version != b"1":
        raise ValueError(f"This gateway speaks version 1 of the Connect protocol, not {_shown(version)}.")
    form = form_of(head)
    if form is RequestForm.GET:
        return _read_get(head)
    codec = (STREAM_TYPES if form is RequestForm.STREAM else UNARY_TYPES).get(head.content_type, "")
    prefix = b"connect-" if form is RequestForm.STREAM else b""
    encoding = _read_encoding(head.all_of(prefix + b"content-encoding"))
    accepted = _read_accepted(head, prefix + b"accept-encoding", encoding)
    return ConnectRequest(form, codec, encoding, accepted, _read_timeout(head))


def _read_get(head: HttpHead) -> ConnectRequest:
    query: dict[bytes, bytes] = {}
    for pair in head.query.split(b"&"):
        quoted, _, value = pair.partition(b"=")
        name = unquote_to_bytes(quoted)
        if name in query and name in _PARAMETERS:
            # Of two, some servers and caches take the first and others the last.
            raise ValueError(f"The query has parameter {name.decode()!r} twice.")
        query[name] = unquote_to_bytes(value.replace(b"+", b" "))
    if query.get(b"connect", b"v1") != b"v1":
        raise ValueError(f"connect={_shown(query[b'connect'])}: this gateway speaks version v1.")
    for name in (b"encoding", b"message"):
        if name not in query:
            raise ValueError(f"The query has no parameter '{name.decode()}'; a GET needs encoding and message.")
    codec = query[b"encoding"].decode("latin-1")
    message = query[b"message"]
    if query.get(b"base64") == b"1":
        message = _decode_base64(message)
    encoding = _read_encoding(query.get(b"compression", b""))
    accepted = _read_accepted(head, b"accept-encoding", encoding)
    known = codec if codec in UNARY_TYPES.values() else ""
    return ConnectRequest(RequestForm.GET, known, encoding, accepted, _read_timeout(head), message)


def _decode_base64(text: bytes) -> bytes:
    stripped = text.rstrip(b"=")
    if not _BASE64(text):
        raise ValueError("The message of the query is not URL-safe base64.")
    try:
        return urlsafe_b64decode(stripped + b"=" * (-len(stripped) % 4))
    except Base64Error:
        raise ValueError("The message of the query is not URL-safe base64.") from None


def _read_timeout(head: HttpHead) -> float | None:
    timeout = head.by_name.get(b"connect-timeout-ms")
    if timeout is None:
        return None
    if not _TIMEOUT(timeout):
        raise ValueError(f"connect-timeout-ms is {_shown(timeout)}: it takes milliseconds, at most ten digits.")
    return int(timeout) / 1000


def _read_encoding(value: bytes) -> str:
    name = value.strip().lower().decode("latin-1")
    if name in ("", "identity"):
        return ""
    if name not in ENCODINGS:
        raise UnsupportedEncodingError(
            f"Messages compressed with {_shown(value)} cannot be read here. This gateway reads {', '.join(ENCODINGS)}."
        )
    return name


def _read_accepted(head: HttpHead, field: bytes, encoding: str) -> tuple[str, ...]:
    """A client that says nothing reads what it writes."""
    if field not in head.by_name:
        return (encoding,) if encoding else ()
    names = []
    for each in head.all_of(field).lower().decode("latin-1").split(","):
        name, _, weight = each.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            names.append(name.strip())
    return tuple(names)


def _shown(value: bytes) -> str:
    return repr(value[:40].decode("latin-1"))
