"""The metadata of calls in the header fields of HTTP, both ways, for the dialects other than gRPC. Pure.

What is about HTTP itself is not metadata of a call, and neither are the fields of the dialect's own protocol. All other
fields are, as servers of gRPC-Web and Connect see them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from gateway.dialects.grpc_metadata import Invocation, read_invocation
from gateway.requests.end_to_end_fields import HOP_BY_HOP
from gateway.requests.exchange import Fields
from gateway.requests.mesh_headers import NO_MESH_HEADERS, read_mesh_headers
from mesh.rpc.grpc_fields import BINARY_SUFFIX, Entry, read_metadata

_OF_HTTP = HOP_BY_HOP | {
    b"accept",
    b"accept-encoding",
    b"cache-control",
    b"expect",
    b"pragma",
    b"priority",
    b"upgrade-insecure-requests",
}
_OF_HTTP_PREFIXES = (b"content-", b"sec-", b"access-control-", b"if-")


def read_http_invocation(fields: Fields, own: frozenset[bytes] = frozenset()) -> Invocation:
    """What a request says to the mesh and to its method. `own`: fields of the dialect's protocol.

    What is for the mesh may have any of the spellings that HTTP has for it, such as `x-request-id`.
    Raises ValueError for a binary value that is not base64.
    """
    metadata = read_metadata(
        field
        for field in fields
        if field[0] not in _OF_HTTP and field[0] not in own and not field[0].startswith(_OF_HTTP_PREFIXES)
    )
    invocation = read_invocation(metadata)
    headers = read_mesh_headers(fields)
    if headers is NO_MESH_HEADERS:
        return invocation
    return invocation._replace(
        request_id=headers.request_id or invocation.request_id,
        multiplexed_model_id=headers.multiplexed_model_id or invocation.multiplexed_model_id,
        session_id=headers.session_id or invocation.session_id,
        tenant=headers.tenant or invocation.tenant,
    )


def write_fields(entries: Iterable[Entry], prefix: bytes = b"") -> Fields:
    """Metadata as header fields; binary values become base64 without padding."""
    return [(prefix + key.encode(), write_value(key, value)) for key, value in entries]


def write_value(key: str, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return b64encode(data).rstrip(b"=") if key.endswith(BINARY_SUFFIX) else data
