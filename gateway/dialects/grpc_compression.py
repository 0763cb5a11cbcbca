"""The compression of one response: what its method asks for, as far as its client accepts it."""

from __future__ import annotations

from mesh.http2.hpack_encoder import encode_field
from mesh.rpc.message_reader import ENCODINGS, compressed_frame
from mesh.rpc.request_head import RequestHead

_MESSAGE_MAX_BYTES = 1024 * 1024
"""A longer message is sent as it is: to compress it would hold up all calls of the gateway for tens of milliseconds."""


class ResponseCompression:
    """Made once the method of a call has said anything about compression."""

    __slots__ = ("_encoding", "_skips_next")

    def __init__(self) -> None:
        self._encoding = ""
        self._skips_next = False

    @property
    def header(self) -> bytes:
        """The field that tells the client, for the headers of the response."""
        return encode_field(b"grpc-encoding", self._encoding.encode()) if self._encoding else b""

    def choose(self, encoding: str, head: RequestHead) -> None:
        """Before the headers of the response are sent."""
        self._encoding = encoding if encoding in ENCODINGS and head.accepts(encoding) else ""

    def skip_next(self) -> None:
        """The next message is to be sent as it is."""
        self._skips_next = True

    def frame(self, message: bytes | memoryview) -> bytes | None:
        """The next message compressed, with its prefix; None if it is to be sent as it is."""
        skips, self._skips_next = self._skips_next, False
        if skips or not self._encoding or len(message) > _MESSAGE_MAX_BYTES:
            return None
        frame = compressed_frame(message, self._encoding)
        return frame if len(frame) < len(message) else None
