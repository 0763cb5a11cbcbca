"""Errors and ends of streams of the Connect protocol: names of codes, JSON and details. Pure."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from gateway.dialects.http_metadata import write_value
from gateway.dialects.method_call import CallEnd
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.status_details import DETAILS_KEY

_NAMES = (
    "ok",
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
)
"""The names of gRPC's codes, in their order."""
_RESERVED_PREFIXES = ("connect-", "trailer-")
_OF_HTTP = frozenset({"content-encoding", "accept-encoding"})
_STANDARD_POOL: DescriptorPool = error_details_pb2.DESCRIPTOR.pool


def error_body(end: CallEnd, pool: DescriptorPool | None = None) -> bytes:
    """The body of a unary answer that is an error. `pool` knows types of details, besides those of google.rpc."""
    return _json(_error(end, pool))


def end_of_stream(end: CallEnd, pool: DescriptorPool | None = None) -> bytes:
    """The message in the last envelope of a stream."""
    tree: dict[str, Any] = {}
    if not end.is_ok:
        tree["error"] = _error(end, pool)
    metadata: dict[str, list[str]] = {}
    for key, value in own_entries(end.trailers):
        metadata.setdefault(key, []).append(write_value(key, value).decode())
    if metadata:
        tree["metadata"] = metadata
    return _json(tree)


def own_entries(entries: tuple[Entry, ...]) -> list[Entry]:
    """Metadata of user code that Connect can carry as such: some names are its own, and details stand in the error."""
    return [
        entry
        for entry in entries
        if entry[0] != DETAILS_KEY and entry[0] not in _OF_HTTP and not entry[0].startswith(_RESERVED_PREFIXES)
    ]


def _error(end: CallEnd, pool: DescriptorPool | None) -> dict[str, Any]:
    tree: dict[str, Any] = {"code": _NAMES[end.code]}
    if end.message:
        tree["message"] = end.message
    details = [_detail(each.type_url, each.value, pool) for each in _details(end)]
    if details:
        tree["details"] = details
    return tree


def _details(end: CallEnd) -> Any:
    for key, value in end.trailers:
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value).details
            except DecodeError:  # user code may set this metadata to anything
                return ()
    return ()


def _detail(type_url: str, value: bytes, pool: DescriptorPool | None) -> dict[str, Any]:
    name = type_url.rpartition("/")[2]
    detail: dict[str, Any] = {"type": name, "value": b64encode(value).rstrip(b"=").decode()}
    for each in (pool, _STANDARD_POOL, descriptor_pool.Default()):
        if each is None:
            continue
        try:
            message = GetMessageClass(each.FindMessageTypeByName(name)).FromString(value)
            detail["debug"] = json_format.MessageToDict(message, descriptor_pool=each)
        except (json_format.Error, KeyError, TypeError, ValueError, DecodeError):
            continue  # this pool does not know the type, or another version of it
        break
    return detail


def _json(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
