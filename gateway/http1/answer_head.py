"""The head of an answer, and how its body is framed (RFC 9112 §6). Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from typing import NamedTuple

from gateway.requests.exchange import Fields

_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_VALUE = re.compile(rb"[^\0\r\n]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch
_DROPPED = frozenset({b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"trailer"})
"""Fields that are the connection's to set."""


_NOT_OF_TUNNELS = _DROPPED | {b"connection", b"content-length", b"date", b"sec-websocket-accept"}
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Shows that the server knows the protocol (RFC 6455 §4.2.2)."""


_KEPT_MAX = 256
_USUAL_MAX_BYTES = 1_024
_REQUEST_ID = b"x-request-id"
"""Different in each answer, so it is not kept."""


class Framing(Enum):
    """How a client finds the end of the body."""

    NONE = auto()
    """There is no body, whatever the fields say."""
    SIZED = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    """For HTTP/1.0, which has no chunks."""


class AnswerError(Exception):
    """An answer that HTTP cannot carry: the fault of what made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the request says about the form of its answer."""

    is_head: bool = False
    is_old: bool = False
    """It came by HTTP/1.0."""
    keeps_alive: bool = True
    """False: the connection is closed behind the answer."""


class AnswerHead(NamedTuple):
    """Bytes to send, and what follows them."""

    data: bytes
    framing: Framing
    length: int = 0
    """Length of the body, where it is SIZED."""
    keeps_alive: bool = True


@lru_cache
def asked_by(method: str, http_version: str, keeps_alive: bool) -> Asked:
    """The one record that says this."""
    return Asked(is_head=method == "HEAD", is_old=http_version == "1.0", keeps_alive=keeps_alive)


def write_head(asked: Asked, status: int, fields: Fields, date: bytes, length: int | None = None) -> AnswerHead:
    """`length`: of a body that is complete; None takes it from the fields, if it is there. Raises AnswerError."""
    own = b""
    if fields and fields[-1][0] == _REQUEST_ID:
        own = _line(*fields[-1])
        fields = fields[:-1]
    key = status, *fields
    lines = _usual_lines.get(key) or _read_lines(key, status, fields)
    if lines.length is not None:
        length = _agreed(length, lines.length)
    keeps_alive = asked.keeps_alive and not lines.closes
    framing = _framing(asked, status, length)
    if framing is Framing.UNTIL_CLOSE:
        keeps_alive = False
    size = ending = b""
    if length is not None and status != 204:
        size = b"content-length: %d\r\n" % length
    elif framing is Framing.CHUNKED:
        size = b"transfer-encoding: chunked\r\n"
    if not keeps_alive:
        ending = b"connection: close\r\n"
    elif asked.is_old:
        ending = b"connection: keep-alive\r\n"
    dated = b"" if lines.has_date else b"date: %b\r\n" % date
    data = b"%b%b%b%b%b\r\n" % (lines.data, own, dated, size, ending)
    return AnswerHead(data, framing, length or 0, keeps_alive)


def write_tunnel_head(key: bytes, fields: Fields, date: bytes) -> bytes:
    """Accepts a WebSocket. `key`: the value of its sec-websocket-key. Raises AnswerError."""
    accept = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"]
    lines += [_line(name, value) for name, value in fields if name not in _NOT_OF_TUNNELS]
    lines += [b"sec-websocket-accept: %b\r\ndate: %b\r\n\r\n" % (accept, date)]
    return b"".join(lines)


def write_trailers(fields: Fields) -> bytes:
    """What ends a body in chunks. Raises AnswerError."""
    return b"0\r\n%b\r\n" % b"".join([_line(name, value) for name, value in fields])


@dataclass(frozen=True, slots=True)
class _Lines:
    """The status line and the lines of fields, whatever was asked for."""

    data: bytes
    length: int | None
    """Value of content-length, which is not among the fields."""
    closes: bool
    """The fields say that the connection closes."""
    has_date: bool


_usual_lines: dict[object, _Lines] = {}
"""An application's answers nearly always have the same status and fields."""


def _read_lines(key: object, status: int, fields: Fields) -> _Lines:
    if not 200 <= status <= 999:
        raise AnswerError(f"status {status}")
    length: int | None = None
    closes = has_date = False
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    for name, value in fields:
        if name == b"content-length":
            length = _agreed(length, _read_length(value))
        elif name == b"connection":
            closes = closes or value.strip().lower() == b"close"
        elif name not in _DROPPED:
            has_date = has_date or name == b"date"
            lines.append(_line(name, value))
    made = _Lines(b"".join(lines), length, closes, has_date)
    if len(made.data) <= _USUAL_MAX_BYTES:
        if len(_usual_lines) >= _KEPT_MAX:
            _usual_lines.clear()
        _usual_lines[key] = made
    return made


def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME(name) or not _VALUE(value):
        raise AnswerError(f"field {name!r}")
    return b"%b: %b\r\n" % (name, value)


def _read_length(value: bytes) -> int:
    if not _LENGTH(value):
        raise AnswerError(f"a content-length of {value[:40]!r}")
    return int(value)


def _agreed(before: int | None, length: int) -> int:
    if before is not None and length != before:
        raise AnswerError(f"a content-length of {length} beside one of {before}")
    return length


def _framing(asked: Asked, status: int, length: int | None) -> Framing:
    if asked.is_head or status in (204, 304):
        return Framing.NONE
    if length is not None:
        return Framing.SIZED
    return Framing.UNTIL_CLOSE if asked.is_old else Framing.CHUNKED
