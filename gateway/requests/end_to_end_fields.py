"""Header fields that pass through a gateway: those of the connection stay out, and none can break the framing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from gateway.requests.exchange import Fields

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""Fields that concern one connection, not the request or the answer that it carries."""

FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})
"""By one of them a proxy in front says that it speaks for another client."""

Field = tuple[bytes, bytes]

_KEPT_MAX = 1_024
_USUAL_MAX_BYTES = 128

_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?").fullmatch
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""In values. A line break there would begin a header or an answer of its own."""


def is_host(value: bytes) -> bool:
    """Whether it is a host with an optional port (RFC 9110 §7.2); names of users do not belong there."""
    return _HOST(value) is not None


def one_cookie_field(fields: Fields) -> Fields:
    """With all `cookie` fields in one, which clients may split on HTTP/2 only (RFC 9113 §8.2.3)."""
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    return [*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]


def end_to_end(fields: Fields) -> Fields:
    """The fields of a request without those of its connection, and without those that its Connection header names."""
    named = {each.strip().lower() for name, value in fields if name == b"connection" for each in value.split(b",")}
    return [field for field in fields if field[0] not in HOP_BY_HOP and field[0] not in named]


def checked(fields: Iterable[Field]) -> Fields:
    """The fields of an application's answer, names in lower case. Raises ValueError naming one that is not valid."""
    passed: Fields = []
    has_hop_by_hop = False
    for field in fields:
        field = _checked_usual(field) if len(field[1]) <= _USUAL_MAX_BYTES else _checked_field(field)
        has_hop_by_hop = has_hop_by_hop or field[0] in HOP_BY_HOP
        passed.append(field)
    return end_to_end(passed) if has_hop_by_hop else passed


def _checked_field(field: Field) -> Field:
    name, value = field[0].lower(), field[1]
    if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
        raise ValueError(f"header {name!r} has characters that HTTP does not allow")
    return name, value.strip(b" \t")


_checked_usual = lru_cache(_KEPT_MAX)(_checked_field)
"""Most fields of an application's answers are always the same."""
