"""`ResponseHead`: what a server's headers or trailers say to a gRPC client."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.http2.field_rules import response_problem, trailer_problem
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.rpc.grpc_fields import Entry, read_metadata, unquote_message

INTERNAL, UNAVAILABLE, UNKNOWN, CANCELLED = 13, 14, 2, 1

_FROM_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC's status for answers that are not gRPC's (gRPC docs, http-grpc-status-mapping)."""
_FROM_RESET = {
    ErrorCode.REFUSED_STREAM: UNAVAILABLE,
    ErrorCode.CANCEL: CANCELLED,
    ErrorCode.CONNECT_ERROR: UNAVAILABLE,
    ErrorCode.ENHANCE_YOUR_CALM: 8,
    ErrorCode.INADEQUATE_SECURITY: 7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Of headers, trailers, or both at once."""

    code: int | None = None
    """gRPC status; None where there is none, as in headers that are not the last."""
    message: str = ""
    metadata: tuple[Entry, ...] = ()
    encoding: str = ""


def read_response_head(fields: list[Field]) -> ResponseHead:
    """Never raises: what is not gRPC becomes a status."""
    by_name = dict(fields)
    is_trailers = b":status" not in by_name
    problem = trailer_problem(fields) if is_trailers else response_problem(fields)
    if problem:
        return ResponseHead(code=INTERNAL, message=f"The server sent {problem}.")
    status = by_name.get(b":status", b"200")
    if status != b"200" and b"grpc-status" not in by_name:
        number = int(status) if status.isdigit() else 0
        return ResponseHead(code=_FROM_HTTP.get(number, UNKNOWN), message=f"The server answered with HTTP {number}.")
    code = by_name.get(b"grpc-status")
    try:
        metadata = read_metadata(fields)
    except ValueError as error:
        return ResponseHead(code=INTERNAL, message=str(error))
    return ResponseHead(
        code=None if code is None else int(code) if code.isdigit() and len(code) < 4 else UNKNOWN,
        message=unquote_message(by_name.get(b"grpc-message", b"")),
        metadata=metadata,
        encoding=by_name.get(b"grpc-encoding", b"identity").decode("ascii", "replace").replace("identity", ""),
    )


def status_of_reset(code: int) -> int:
    """gRPC's status for a stream that was reset with an HTTP/2 error code."""
    return _FROM_RESET.get(code, INTERNAL)  # type: ignore[call-overload,no-any-return]
