"""Which header lists are well-formed (RFC 9113 §8.2, §8.3). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mesh.http2.hpack_decoder import Field

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_VALUE = re.compile(rb"[^\0\r\n]*").fullmatch
"""White space at the ends is let through: gRPC allows it in metadata."""
_OF_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_REQUEST_REQUIRED = frozenset({b":method", b":scheme", b":path"})
_REQUEST_ALLOWED = _REQUEST_REQUIRED | {b":authority"}
_CONNECT_FIELDS = {b":method", b":authority"}
_EXTENDED_CONNECT_FIELDS = _REQUEST_ALLOWED | {b":protocol"}
"""RFC 8441."""
_RESPONSE_ONLY = frozenset({b":status"})


def request_problem(fields: Sequence[Field], *, takes_websockets: bool = False) -> str:
    """What is wrong with the fields of a request; empty if nothing is.

    `takes_websockets`: the client was allowed to open one by an extended CONNECT.
    """
    problem = _problem(fields, _EXTENDED_CONNECT_FIELDS if takes_websockets else _REQUEST_ALLOWED)
    if problem:
        return problem
    pseudo = {name: value for name, value in fields if name[:1] == b":"}
    if b":protocol" in pseudo:
        is_valid = pseudo.keys() == _EXTENDED_CONNECT_FIELDS and pseudo[b":method"] == b"CONNECT"
        return "" if is_valid else "a :protocol without CONNECT, or without the other fields"
    if pseudo.get(b":method") == b"CONNECT":
        return "" if pseudo.keys() == _CONNECT_FIELDS else "a CONNECT with other fields than :authority"
    missing = _REQUEST_REQUIRED - pseudo.keys()
    if missing:
        return f"no {_text(min(missing))}"
    return "" if pseudo[b":path"] else "an empty :path"


def response_problem(fields: Sequence[Field]) -> str:
    """What is wrong with the fields that open a response; empty if nothing is."""
    return _problem(fields, _RESPONSE_ONLY) or ("" if any(name == b":status" for name, _ in fields) else "no :status")


def trailer_problem(fields: Sequence[Field]) -> str:
    """What is wrong with trailers; empty if nothing is."""
    return _problem(fields, frozenset())


def _problem(fields: Sequence[Field], pseudo_allowed: frozenset[bytes]) -> str:
    seen: set[bytes] = set()
    has_regular = False
    for name, value in fields:
        if not _NAME(name) or not _VALUE(value):
            return f"field {_text(name)} has characters that are not allowed"
        if name[:1] == b":":
            if name not in pseudo_allowed or name in seen or has_regular:
                return f"{_text(name)} where it is not allowed"
            seen.add(name)
            continue
        has_regular = True
        if name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            return f"{_text(name)}, which HTTP/2 does not have"
    return ""


def _text(name: bytes) -> str:
    return name[:60].decode("ascii", "replace")
