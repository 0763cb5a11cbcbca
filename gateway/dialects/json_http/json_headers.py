"""Headers of JSON requests and answers, and the metadata of calls that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.dialects.grpc_metadata import REQUEST_ID_KEY, Invocation
from gateway.dialects.http_metadata import read_http_invocation, write_fields
from gateway.requests.exchange import Fields, HttpHead
from gateway.requests.mesh_headers import TIMEOUT_NAME, read_mesh_headers, timeout_of
from gateway.transcoding.query_parameters import split_query
from mesh.rpc.grpc_fields import Entry, read_timeout
from mesh.rpc.status_details import DETAILS_KEY

_METADATA_PREFIX = b"grpc-metadata-"
_TRAILER_PREFIX = b"grpc-trailer-"
_OF_JSON = frozenset({TIMEOUT_NAME.encode()})


@dataclass(frozen=True, slots=True)
class JsonHead:
    """What the headers of a request say about its call."""

    invocation: Invocation
    timeout_s: float | None


def read_json_head(head: HttpHead) -> JsonHead:
    """Raises ValueError for values that metadata cannot carry, and for wrong timeouts."""
    # Of what is said in two fields the first counts: one without the prefix.
    fields = sorted(head.fields, key=lambda field: field[0].startswith(_METADATA_PREFIX))
    return JsonHead(read_http_invocation([*map(_metadata_field, fields)], _OF_JSON), _timeout_s(head))


def with_query(head: JsonHead, query: bytes, names: frozenset[str]) -> JsonHead:
    """What the query says to the mesh as well, in parameters of these names; headers count more.

    For clients that cannot send headers, such as EventSource and WebSocket in browsers. Raises FieldError.
    """
    if not names or not any(name.encode() in query for name in names):
        return head
    said = {name: text for name, text in reversed(split_query(query)) if name in names}
    invocation = head.invocation
    invocation = invocation._replace(
        multiplexed_model_id=invocation.multiplexed_model_id or said.get("multiplexed_model_id", ""),
        session_id=invocation.session_id or said.get("session_id", ""),
        tenant=invocation.tenant or said.get("tenant", ""),
    )
    return replace(head, invocation=invocation)


def answer_fields(
    content_type: bytes, request_id: str, initial: tuple[Entry, ...], trailing: tuple[Entry, ...]
) -> Fields:
    """The head of an answer that has its metadata with it."""
    fields = [(b"content-type", content_type), (b"x-request-id", request_id.encode())]
    if initial:
        fields += write_fields(initial, _METADATA_PREFIX)
    if len(trailing) > 1:
        fields += write_fields(users_trailers(trailing), _TRAILER_PREFIX)
    return fields


def trailer_fields(trailing: tuple[Entry, ...]) -> Fields | None:
    """The trailers of a streamed answer."""
    return write_fields(users_trailers(trailing), _TRAILER_PREFIX) or None


def users_trailers(trailing: tuple[Entry, ...]) -> list[Entry]:
    """Without the request id, which is a header, and the details, which are in the body."""
    return [entry for entry in trailing if entry[0] not in (REQUEST_ID_KEY, DETAILS_KEY)]


def details_of(trailing: tuple[Entry, ...]) -> bytes:
    """The serialised google.rpc.Status with the details of an error; empty if there is none."""
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return value
    return b""


def _metadata_field(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = field
    return (name[len(_METADATA_PREFIX) :], value) if name.startswith(_METADATA_PREFIX) else field


def _timeout_s(head: HttpHead) -> float | None:
    """The shorter one of what the two headers say."""
    grpc, own = head.by_name.get(b"grpc-timeout"), read_mesh_headers(head.fields).timeout
    timeouts_s = [] if grpc is None else [read_timeout(grpc)]
    if own:
        timeouts_s.append(timeout_of(own))
    return min(timeouts_s, default=None)
