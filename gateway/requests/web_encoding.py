"""HTTP requests and answers in the form in which they cross a link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.requests.end_to_end_fields import HOP_BY_HOP, checked, end_to_end
from gateway.requests.exchange import Fields, HttpHead
from mesh.v1 import web_pb2
from mesh.wire.web_messages import KEPT_BYTES_MAX, REQUEST, RESPONSE, decode_response, head_part, header_pairs

_PEERS_KEPT = 1_024
_KEPT_MAX = 256
_STATUS_MIN, _STATUS_MAX = 200, 999
_WITHOUT_BODY = frozenset({204, 304})
_LENGTH_MAX_DIGITS = 18
_REQUEST_ID = b"x-request-id"
_CONTENT_LENGTH = b"content-length"


def encode_request(
    head: HttpHead,
    raw_path: str,
    root_path: str,
    request_id: bytes = b"",
    body: bytes = b"",
    subprotocols: Sequence[str] = (),
) -> bytes:
    """The serialised WebRequest. `request_id`: of a request that came without one, so that its application sees it."""
    return REQUEST.join(encode_head(head, raw_path, root_path, subprotocols), request_id, body)


def encode_head(head: HttpHead, raw_path: str, root_path: str, subprotocols: Sequence[str] = ()) -> bytes:
    """What all requests with this head have in common; `REQUEST.join` adds their ids and bodies."""
    fields = head.fields
    for field in fields:
        if field[0] in HOP_BY_HOP:
            fields = end_to_end(fields)
            break
    client_host, client_port = address_of(head.peer)
    return head_part(
        web_pb2.WebRequest(
            method=head.method,
            raw_path=raw_path.encode("latin-1", "replace"),
            query_string=head.query,
            scheme=head.scheme,
            http_version=head.http_version,
            headers=[part for field in fields for part in field],
            client_host=client_host,
            client_port=client_port,
            root_path=root_path,
            subprotocols=subprotocols,
            is_websocket=head.is_websocket,
        )
    )


@lru_cache(_PEERS_KEPT)
def address_of(peer: str) -> tuple[str, int]:
    """Host and port of a peer as gRPC names it, "ipv4:10.0.0.1:4711" or "ipv6:[::1]:4711"; ("", 0) for others."""
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return "", 0
    return host.strip("[]"), int(port)


_known: dict[bytes, WebAnswer] = {}
"""Heads of answers, by their bytes."""


@dataclass(slots=True)
class WebAnswer:
    """The head of an application's answer."""

    status: int
    fields: Fields
    """Without content-length."""
    content_length: int | None
    """As the application has said it."""
    route: str = ""
    """The pattern of the application's route, or empty."""

    @property
    def has_body(self) -> bool:
        """Whether HTTP allows one with this status."""
        return self.status not in _WITHOUT_BODY

    def streamed_fields(self) -> Fields:
        """Fields of an answer whose body passes in pieces."""
        return self.fields if self.content_length is None else self.fields_without_body(self.content_length)

    def fields_without_body(self, content_length: int | None) -> Fields:
        """Fields of an answer that is only a head: to HEAD, or with a status that has no body."""
        if content_length is None or self.status == 204:
            return self.fields
        return [*self.fields, (_CONTENT_LENGTH, b"%d" % content_length)]


def read_response(data: bytes, request_id: str) -> tuple[WebAnswer, bytes]:
    """The answer in a serialised WebResponse, and its body. Raises DecodeError, ValueError with what HTTP cannot carry.

    Answers of an application nearly always have one of a few heads, each of which is read once.
    """
    parts = RESPONSE.split(data)
    if parts is None:
        response = decode_response(data)
        return read_answer(response.status, response.headers, request_id, response.route), response.body
    head, length, body = parts
    known = _known.get(head) or _read_head(head)
    content_length = _length(length, known.content_length) if length else known.content_length
    fields = [*known.fields, (_REQUEST_ID, request_id.encode())]
    return WebAnswer(known.status, fields, content_length, known.route), body


def _read_head(head: bytes) -> WebAnswer:
    response = decode_response(head)
    answer = _answer(response.status, response.headers, response.route)
    if len(head) <= KEPT_BYTES_MAX:
        if len(_known) >= _KEPT_MAX:
            _known.clear()
        _known[head] = answer
    return answer


def read_answer(status: int, flat: Sequence[bytes], request_id: str, route: str = "") -> WebAnswer:
    """The head of an answer from a WebResponse. Raises ValueError with what HTTP cannot carry."""
    answer = _answer(status, flat, route)
    answer.fields.append((_REQUEST_ID, request_id.encode()))
    return answer


def _answer(status: int, flat: Sequence[bytes], route: str) -> WebAnswer:
    """Without a request id."""
    if not _STATUS_MIN <= status <= _STATUS_MAX:
        raise ValueError(f"status {status} does not end an exchange")
    content_length: int | None = None
    fields: Fields = []
    for field in checked(header_pairs(flat)):
        if field[0] == _CONTENT_LENGTH:
            content_length = _length(field[1], content_length)
        elif field[0] != _REQUEST_ID:
            fields.append(field)
    return WebAnswer(status, fields, content_length, route)


def _length(value: bytes, before: int | None) -> int:
    if not (value.isdigit() and len(value) <= _LENGTH_MAX_DIGITS) or (before is not None and before != int(value)):
        raise ValueError(f"content-length {value!r} is not one number")
    return int(value)
