"""`RequestHead`: the headers of a gRPC request, read once for all calls that send the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from mesh.http2.field_rules import request_problem, trailer_problem
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.http2.stream import Stream
from mesh.rpc.grpc_fields import CONTENT_TYPE, Entry, read_encoding, read_metadata, read_timeout
from mesh.rpc.message_reader import ENCODINGS, not_read_here
from mesh.rpc.status_codes import INVALID_ARGUMENT, UNIMPLEMENTED


@dataclass(slots=True, kw_only=True, eq=False)
class RequestHead:
    """Shared between calls: not changed once it is made."""

    fields: list[Field]
    path: str = ""
    """For instance "/package.Service/Method"."""
    metadata: tuple[Entry, ...] = ()
    timeout_s: float | None = None
    encoding: str = ""
    """How request messages are compressed; empty: they are not."""
    content_length: int | None = None
    malformed: str = ""
    """What makes this no HTTP request; the stream is to be reset."""
    http_status: int = 200
    """Another one than 200 where this is an HTTP request, but not one of gRPC."""
    refusal: str = ""
    """What makes this no gRPC request that can be served; the answer is `refusal_code` with this text."""
    refusal_code: int = INVALID_ARGUMENT

    def accepts(self, encoding: str) -> bool:
        """Whether responses may be compressed with it."""
        accepted = dict(self.fields).get(b"grpc-accept-encoding", b"")
        return encoding.encode() in (each.strip() for each in accepted.split(b","))


H = TypeVar("H", bound=RequestHead)


def read_request_head(
    fields: list[Field],
    make: type[H] = RequestHead,  # type: ignore[assignment]
    *,
    takes_websockets: bool = False,
) -> H:
    """The head, of a type that may add to it. Never raises: what is wrong with a request is part of its head."""
    problem = request_problem(fields, takes_websockets=takes_websockets)
    if problem:
        return make(fields=fields, malformed=problem)
    by_name = dict(fields)
    length = by_name.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 20 and _is_once(fields, b"content-length")):
        return make(fields=fields, malformed="a content-length that is not one number")
    content_length = None if length is None else int(length)
    path = by_name.get(b":path", b"").decode("ascii", "backslashreplace")
    if not is_grpc(by_name.get(b"content-type", b"")):
        return make(fields=fields, path=path, content_length=content_length, http_status=415)
    http_status = 200 if by_name[b":method"] == b"POST" else 405
    try:
        timeout = by_name.get(b"grpc-timeout")
        encoding = read_encoding(by_name.get(b"grpc-encoding", b""))
        return make(
            fields=fields,
            path=path,
            metadata=read_metadata(fields),
            timeout_s=None if timeout is None else read_timeout(timeout),
            encoding=encoding,
            content_length=content_length,
            http_status=http_status,
            refusal="" if not encoding or encoding in ENCODINGS else not_read_here(encoding),
            refusal_code=UNIMPLEMENTED if encoding else INVALID_ARGUMENT,
        )
    except ValueError as error:
        return make(fields=fields, content_length=content_length, http_status=http_status, refusal=str(error))


def check_trailers(stream: Stream, head: RequestHead | None) -> None:
    """End the stream if these trailers of its request are malformed (RFC 9113 §8.1). What they say means nothing."""
    if head is not None and trailer_problem(head.fields):
        stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)


def _is_once(fields: list[Field], name: bytes) -> bool:
    return sum(each == name for each, _ in fields) == 1


def is_grpc(content_type: bytes) -> bool:
    """Whether a request with this content-type is one of gRPC; gRPC-Web is not."""
    kind, _, rest = content_type.partition(CONTENT_TYPE)
    return not kind and bool(content_type) and (not rest or rest[:1] in b"+;")
