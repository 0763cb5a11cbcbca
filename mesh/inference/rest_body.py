"""The body of an inference request: collected, and unpacked, up to a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh.inference.protocol.numpy_module import load_numpy
from mesh.inference.protocol.tensor_contents import Buffer
from mesh.settings import settings
from mesh.web.asgi_types import ClientGoneError, Receive

if TYPE_CHECKING:
    import numpy as np
else:
    np = load_numpy()

Fields = Iterable[tuple[bytes, bytes]]

_ALIGNMENT_BYTES = 64
"""Of tensors, as numpy and vectorised code like it best."""
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class RestError(Exception):
    """A request is refused, with this status of HTTP."""

    def __init__(self, status: int, text: str, headers: Fields = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def header_value(headers: Fields, name: bytes) -> str:
    """The values of all headers of this name as one list (RFC 9110 §5.3); empty if there is none."""
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


async def read_body(headers: Fields, receive: Receive, aligned_byte: int = 0) -> Buffer:
    """The whole body, unpacked. Raises RestError, ClientGoneError.

    `aligned_byte`: where tensors begin. A body that came in pieces is joined so that they are aligned.
    """
    limit = settings().replica.inference_body_max_bytes
    pieces: list[bytes] = []
    size = 0
    is_complete = False
    while not is_complete:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError("The client has left.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        is_complete = not message.get("more_body", False)
    body = pieces[0] if len(pieces) == 1 else _joined(pieces, size, aligned_byte)
    encoding = header_value(headers, b"content-encoding").strip().lower() or "identity"
    return body if encoding == "identity" else unpack_body(body, encoding, limit)


def unpack_body(data: Buffer, encoding: str, limit: int) -> bytes:
    """Decompress at most `limit` bytes. Raises RestError."""
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise RestError(415, "Content-Encoding is gzip, deflate or identity here.")
    unpacker = zlib.decompressobj(window_bits)
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise RestError(400, f"The body is not {encoding}: {error}.") from None
    if len(found) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise RestError(400, f"The body is not one whole {encoding} stream.")
    return found


def _joined(pieces: list[bytes], size: int, aligned_byte: int) -> memoryview:
    buffer = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    start = -(buffer.ctypes.data + aligned_byte) % _ALIGNMENT_BYTES
    body = memoryview(buffer.data)[start : start + size]
    position = 0
    for each in pieces:
        body[position : position + len(each)] = each
        position += len(each)
    return body.toreadonly()


def _too_large(limit: int) -> RestError:
    return RestError(413, f"The body is larger than {limit} bytes (MESH_REPLICA_INFERENCE_BODY_MAX_BYTES).")
