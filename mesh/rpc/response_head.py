"""`ResponseHead`: what a server's headers or trailers say to a gRPC client."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.http2.field_rules import response_problem, trailer_problem
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.rpc.grpc_fields import CONTENT_TYPE, Entry, read_encoding, read_metadata, unquote_message
from mesh.rpc.status_codes import (
    CANCELLED,
    INTERNAL,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
)

_FROM_HTTP: dict[int, int] = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
"""gRPC's status for answers that are not gRPC's (gRPC docs, http-grpc-status-mapping)."""
_FROM_RESET: dict[int, int] = {
    ErrorCode.REFUSED_STREAM: UNAVAILABLE,
    ErrorCode.CANCEL: CANCELLED,
    ErrorCode.CONNECT_ERROR: UNAVAILABLE,
    ErrorCode.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: PERMISSION_DENIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """The content of headers, of trailers, or of both at once."""

    code: int | None = None
    """gRPC status; None where there is none, as in headers that are not the last."""
    message: str = ""
    metadata: tuple[Entry, ...] = ()
    encoding: str = ""


INTERIM = ResponseHead()
"""Headers before the real ones, which mean nothing in gRPC (RFC 9110 §15.2)."""


def read_response_head(fields: list[Field]) -> ResponseHead:
    """Never raises: what is not gRPC becomes a status."""
    by_name = dict(fields)
    is_trailers = b":status" not in by_name
    problem = trailer_problem(fields) if is_trailers else response_problem(fields)
    if problem:
        return ResponseHead(code=INTERNAL, message=f"The server sent {problem}.")
    status = by_name.get(b":status", b"200")
    if status[:1] == b"1":
        return INTERIM
    if status != b"200" and b"grpc-status" not in by_name:
        number = int(status) if status.isdigit() and len(status) == 3 else 0
        return ResponseHead(code=_FROM_HTTP.get(number, UNKNOWN), message=f"The server answered with HTTP {number}.")
    content_type = by_name.get(b"content-type", CONTENT_TYPE if is_trailers else b"")
    if not content_type.startswith(CONTENT_TYPE) and b"grpc-status" not in by_name:
        text = content_type[:60].decode("ascii", "replace")
        return ResponseHead(code=UNKNOWN, message=f"The server's answer is not gRPC, its content-type is {text!r}.")
    code = by_name.get(b"grpc-status")
    try:
        metadata = read_metadata(fields)
    except ValueError as error:
        return ResponseHead(code=INTERNAL, message=str(error))
    return ResponseHead(
        code=None if code is None else int(code) if code.isdigit() and len(code) < 4 else UNKNOWN,
        message=unquote_message(by_name.get(b"grpc-message", b"")),
        metadata=metadata,
        encoding=read_encoding(by_name.get(b"grpc-encoding", b"")),
    )


def head_of_reset(code: int) -> ResponseHead:
    """The status of a stream that ended early, by its HTTP/2 error code (gRPC over HTTP/2, Errors)."""
    match code:
        case ErrorCode.CONNECT_ERROR:
            message = "The connection was lost."
        case ErrorCode.REFUSED_STREAM:
            message = "The server refused the call before it had begun; it may be retried."
        case _:
            message = f"The stream was reset with HTTP/2 error code {code}."
    return ResponseHead(code=_FROM_RESET.get(code, INTERNAL), message=message)
