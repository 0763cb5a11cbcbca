"""Bodies of JSON requests: bounded, decompressed, and cut into messages for the flow to the replica."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_lines import LineReader
from gateway.transcoding.json_parser import parse_json
from gateway.transcoding.json_scalars import Json

LINE_MAX_BYTES = 1024 * 1024
"""Size of a line with one message of a streamed request: it is translated on the I/O loop."""

_GZIP = 31


class BodyTooLargeError(Exception):
    """A body, or a line of one, is longer than allowed."""


class Inflater:
    """Decompresses gzip as it arrives, up to a limit in total."""

    __slots__ = ("_left_bytes", "_max_bytes", "_stream")

    def __init__(self, max_bytes: int) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._max_bytes = self._left_bytes = max_bytes

    def feed(self, data: bytes) -> bytes:
        """Raises BodyTooLargeError before more than the limit is made, FieldError for what is not gzip."""
        try:
            plain = self._stream.decompress(data, self._left_bytes + 1)
        except zlib.error:
            raise FieldError("the body is not gzip, which its content-encoding says") from None
        self._left_bytes -= len(plain)
        if self._left_bytes < 0:
            raise BodyTooLargeError(f"the body has more than {self._max_bytes} bytes once it is decompressed")
        if self._stream.unused_data:
            raise FieldError("the body has bytes behind the end of its gzip")
        return plain

    def end(self) -> None:
        """Raises FieldError for a body that is cut off."""
        if not self._stream.eof:
            raise FieldError("the gzip of the body is cut off")


class WholeBody:
    """A body that is one message, or an array of messages."""

    __slots__ = ("_inflater", "_max_bytes", "data")

    def __init__(self, max_bytes: int, *, is_gzip: bool) -> None:
        self._max_bytes = max_bytes
        self._inflater = Inflater(max_bytes) if is_gzip else None
        self.data = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises BodyTooLargeError and FieldError."""
        self.data += data if self._inflater is None else self._inflater.feed(data)
        if len(self.data) > self._max_bytes:
            raise BodyTooLargeError(f"the body has more than {self._max_bytes} bytes")

    def end(self) -> None:
        """Raises FieldError."""
        if self._inflater is not None and self.data:
            self._inflater.end()


class MessageLines:
    """A body with one message per line, bound one by one as the replica takes them."""

    __slots__ = ("_bind", "_lines", "_waiting", "_waiting_bytes")

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        """`bind` makes the serialised message of a line, and raises FieldError."""
        self._bind = bind
        self._lines = LineReader(LINE_MAX_BYTES)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of lines that were not returned."""
        return self._waiting_bytes + self._lines.begun_bytes

    def feed(self, data: bytes) -> None:
        """Raises FieldError."""
        self._wait(self._lines.feed(data))

    def end(self) -> None:
        """The body is complete."""
        self._wait(self._lines.end())

    def next_message(self) -> bytes | None:
        """The next serialised message. Raises FieldError that names the line."""
        if not self._waiting:
            return None
        number, line = self._waiting.popleft()
        self._waiting_bytes -= len(line)
        try:
            return self._bind(line)
        except FieldError as error:
            error.place = f"line {number}"
            raise

    def _wait(self, lines: list[tuple[int, bytes]]) -> None:
        self._waiting.extend(lines)
        self._waiting_bytes += sum(len(line) for _, line in lines)


class MessageArray:
    """A body that is an array of messages, or one message, for a method that streams its requests.

    It is as long as a line may be; longer ones are to be sent as lines.
    """

    __slots__ = ("_bind", "_body", "_trees")

    def __init__(self, bind: Callable[[Json], bytes], *, is_gzip: bool) -> None:
        """`bind` makes the serialised message of an element, and raises FieldError."""
        self._bind = bind
        self._body = WholeBody(LINE_MAX_BYTES, is_gzip=is_gzip)
        self._trees: deque[Json] = deque()

    @property
    def kept_bytes(self) -> int:
        return len(self._body.data) if not self._trees else 1

    def feed(self, data: bytes) -> None:
        """Raises FieldError and BodyTooLargeError."""
        self._body.feed(data)

    def end(self) -> None:
        """The body is complete. Raises FieldError."""
        self._body.end()
        if self._body.data:
            tree = parse_json(self._body.data)
            self._trees.extend(tree if type(tree) is list else [tree])
            self._body.data = bytearray()

    def next_message(self) -> bytes | None:
        """The next serialised message. Raises FieldError."""
        return self._bind(self._trees.popleft()) if self._trees else None


class RawPieces:
    """A body that is not JSON, for a method that streams its requests: a message for each piece that arrives."""

    __slots__ = ("_bind", "_kept_bytes", "_pieces")

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        """`bind` makes the serialised message around a piece, and raises FieldError."""
        self._bind = bind
        self._pieces: deque[bytes] = deque()
        self._kept_bytes: int | None = None
        """None: nothing has come."""

    @property
    def kept_bytes(self) -> int:
        return max(self._kept_bytes or 0, len(self._pieces))

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._kept_bytes = (self._kept_bytes or 0) + len(data)

    def end(self) -> None:
        """The body is complete. An empty one is one message: the path may say something as well."""
        if self._kept_bytes is None:
            self.feed(b"")

    def next_message(self) -> bytes | None:
        """The next serialised message. Raises FieldError."""
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._kept_bytes = (self._kept_bytes or 0) - len(piece)
        return self._bind(piece)
