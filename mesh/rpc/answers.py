"""How a server ends a call on its stream: with a status, or with an HTTP error for what is no gRPC request."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.http2.hpack_encoder import encode_field, encode_fields
from mesh.http2.stream import Stream
from mesh.rpc.grpc_fields import RESPONSE_BLOCK, status_block
from mesh.rpc.message_reader import ACCEPTED_ENCODINGS
from mesh.rpc.status_codes import UNIMPLEMENTED

_HTTP_ERRORS = {
    405: encode_fields([(b":status", b"405"), (b"allow", b"POST")]),
    431: encode_fields([(b":status", b"431")]),
    415: encode_fields([(b":status", b"415"), (b"accept", b"application/grpc")]),
}

_ACCEPTED = encode_field(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
"""Said with UNIMPLEMENTED, which may be about the encoding of a request (gRPC docs, compression)."""


def answer_status(
    stream: Stream, code: int, message: str = "", entries: Iterable[tuple[str, str | bytes]] = ()
) -> None:
    """End a call with a status; it may have sent headers and messages before. Without effect on one that has ended.

    Raises ValueError for entries that gRPC does not allow as metadata.
    """
    if not stream.has_ended:
        trailers = status_block(code, message, entries)
        end_call(stream, trailers + _ACCEPTED if code == UNIMPLEMENTED else trailers)


def end_call(stream: Stream, trailers: bytes) -> None:
    """End a call with a block of trailers."""
    outbox = stream.connection.outbox
    if stream.has_sent_headers:
        outbox.end(stream, trailers)
    else:
        outbox.send_headers(stream, RESPONSE_BLOCK + trailers, ends=True)


def answer_http_error(stream: Stream, status: int) -> None:
    """Refuse a request that is not one of gRPC: 405, 415 or 431."""
    stream.connection.outbox.send_headers(stream, _HTTP_ERRORS[status], ends=True)
