"""The head of an answer, and how its body is framed (RFC 9112 §6). Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus

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


_KEPT_MAX = 1_024
_USUAL_MAX_BYTES = 64
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


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Bytes to send, and what follows them."""

    data: bytes
    framing: Framing
    length: int = 0
    """Of the body, where it is SIZED."""
    keeps_alive: bool = True


@lru_cache
def asked_by(*, is_head: bool, is_old: bool, keeps_alive: bool) -> Asked:
    """The one record that says this."""
    return Asked(is_head=is_head, is_old=is_old, keeps_alive=keeps_alive)


def write_head(asked: Asked, status: int, fields: Fields, date: bytes, length: int | None = None) -> AnswerHead:
    """`length`: of a body that is complete; None takes it from the fields, if it is there. Raises AnswerError."""
    if not 200 <= status <= 999:
        raise AnswerError(f"status {status}")
    keeps_alive = asked.keeps_alive
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    has_date = False
    for name, value in fields:
        if name == b"content-length":
            length = _read_length(length, value)
            continue
        if name == b"connection":
            keeps_alive = keeps_alive and value.strip().lower() != b"close"
            continue
        if name in _DROPPED:
            continue
        if name == b"date":
            has_date = True
        is_usual = len(value) <= _USUAL_MAX_BYTES and name != _REQUEST_ID
        lines.append(_usual_line(name, value) if is_usual else _line(name, value))
    if not has_date:
        lines.append(b"date: %b\r\n" % date)
    framing = _framing(asked, status, length)
    if framing is Framing.UNTIL_CLOSE:
        keeps_alive = False
    if length is not None and status != 204:
        lines.append(b"content-length: %d\r\n" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    if not keeps_alive:
        lines.append(b"connection: close\r\n")
    elif asked.is_old:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return AnswerHead(b"".join(lines), framing, length or 0, keeps_alive)


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


def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME(name) or not _VALUE(value):
        raise AnswerError(f"field {name!r}")
    return b"%b: %b\r\n" % (name, value)


_usual_line = lru_cache(_KEPT_MAX)(_line)
"""Most fields of answers are always the same."""


def _read_length(before: int | None, value: bytes) -> int:
    if not _LENGTH(value) or (before is not None and int(value) != before):
        raise AnswerError(f"a content-length of {value[:40]!r}")
    return int(value)


def _framing(asked: Asked, status: int, length: int | None) -> Framing:
    if asked.is_head or status in (204, 304):
        return Framing.NONE
    if length is not None:
        return Framing.SIZED
    return Framing.UNTIL_CLOSE if asked.is_old else Framing.CHUNKED
