"""The status of a call as JSON, in the form of google.rpc.Status."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.transcoding.field_error import FieldError
from mesh.rpc import status_codes

CODE_OF_FAULT: dict[int, int] = {
    400: status_codes.INVALID_ARGUMENT,
    408: status_codes.DEADLINE_EXCEEDED,
    413: status_codes.RESOURCE_EXHAUSTED,
    431: status_codes.RESOURCE_EXHAUSTED,
}
"""The code of gRPC by the HTTP status of a request that ends early by its client's fault."""

_STANDARD_POOL: DescriptorPool = error_details_pb2.DESCRIPTOR.pool


def status_json(code: int, message: str, details: bytes = b"", pool: DescriptorPool | None = None) -> bytes:
    """`details`: a serialised google.rpc.Status, as `grpc-status-details-bin` carries it.

    `pool` knows the types of its details, besides those of google.rpc. One that is unknown keeps its bytes, as base64
    under the key "value".
    """
    return msgspec.json.encode({"code": code, "message": message, "details": _details(details, pool)})


def field_error_json(error: FieldError) -> bytes:
    """INVALID_ARGUMENT, with the field as a google.rpc.BadRequest names it."""
    details = []
    if error.path:
        violation = {"field": error.path, "description": error.problem}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    return msgspec.json.encode({"code": status_codes.INVALID_ARGUMENT, "message": str(error), "details": details})


def _details(serialised: bytes, pool: DescriptorPool | None) -> list[dict[str, Any]]:
    if not serialised:
        return []
    try:
        status = status_pb2.Status.FromString(serialised)
    except DecodeError:  # user code may set this metadata to anything
        return []
    return [_detail(each, pool) for each in status.details]


def _detail(detail: AnyMessage, pool: DescriptorPool | None) -> dict[str, Any]:
    for each in (pool, _STANDARD_POOL):
        if each is None:
            continue
        try:
            tree: dict[str, Any] = json_format.MessageToDict(detail, descriptor_pool=each)
        except (json_format.Error, TypeError, KeyError, ValueError, DecodeError):
            continue  # this pool does not know the type
        return tree
    return {"@type": detail.type_url, "value": b64encode(detail.value).decode()}
