"""Bodies of JSON requests: bounded, decompressed, and cut into messages for the flow to the replica."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.dialects.compression import RequestDecompression
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_lines import LineReader
from gateway.transcoding.json_parser import split_array
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import RESOURCE_EXHAUSTED

LINE_MAX_BYTES = 1024 * 1024
"""Size of a line with one message of a streamed request."""


class BodyTooLargeError(Exception):
    """A body, or a line of one, is longer than allowed."""


class WholeBody:
    """A body that is one message, or an array of messages."""

    __slots__ = ("_decompression", "_max_bytes", "data")

    def __init__(self, max_bytes: int, decompression: RequestDecompression | None = None) -> None:
        """`max_bytes`: also once it is decompressed. `decompression` None: it is not compressed."""
        self._decompression = decompression
        self._max_bytes = max_bytes
        self.data: bytes | bytearray = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises BodyTooLargeError."""
        self.data += data
        if len(self.data) > self._max_bytes:
            raise BodyTooLargeError(f"the body has more than {self._max_bytes} bytes")

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        """Whether the complete body is to be decompressed in a later turn of the loop; `go_on` is called then."""
        return bool(self.data) and self._decompression is not None and self._decompression.must_wait(go_on)

    def end(self) -> None:
        """Let `data` be the text. Raises BodyTooLargeError, before more than the limit is made, and FieldError."""
        if self._decompression is None or not self.data:
            return
        try:
            self.data = self._decompression.plain(self.data)
        except MessageError as error:
            if error.code == RESOURCE_EXHAUSTED:
                raise BodyTooLargeError(
                    f"the body has more than {self._max_bytes} bytes once it is decompressed"
                ) from None
            raise FieldError("the body is not exactly one whole gzip stream, as its content-encoding says") from None


class MessageLines:
    """A body with one message per line, cut one by one as the replica takes them."""

    __slots__ = ("_bind", "_lines", "_number", "_waiting", "_waiting_bytes")

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        """`bind` makes the serialised message of a line, and raises FieldError."""
        self._bind = bind
        self._lines = LineReader(LINE_MAX_BYTES)
        self._number = 0
        """That of the line which was returned last."""
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of lines that were not returned."""
        return self._waiting_bytes + self._lines.begun_bytes

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        return False

    def feed(self, data: bytes) -> None:
        """Raises FieldError."""
        self._wait(self._lines.feed(data))

    def end(self) -> None:
        """The body is complete."""
        self._wait(self._lines.end())

    def next_message(self) -> bytes | None:
        """The next line."""
        if not self._waiting:
            return None
        self._number, line = self._waiting.popleft()
        self._waiting_bytes -= len(line)
        return line

    def translate(self, line: bytes) -> bytes:
        """The serialised message of the line that was returned last. Raises FieldError that names it."""
        try:
            return self._bind(line)
        except FieldError as error:
            error.place = f"line {self._number}"
            raise

    def _wait(self, lines: list[tuple[int, bytes]]) -> None:
        self._waiting.extend(lines)
        self._waiting_bytes += sum(len(line) for _, line in lines)


class MessageArray:
    """A body that is an array of messages, or one message, for a method that streams its requests.

    It is as long as a line may be; longer ones are to be sent as lines.
    """

    __slots__ = ("_body", "_elements", "_elements_bytes", "_is_complete", "translate")

    def __init__(self, bind: Callable[[bytes], bytes], body: WholeBody) -> None:
        """`bind` makes the serialised message of an element, and raises FieldError."""
        self.translate = bind
        self._body = body
        self._is_complete = False
        self._elements: deque[bytes] = deque()
        self._elements_bytes = 0

    @property
    def kept_bytes(self) -> int:
        return len(self._body.data) + self._elements_bytes

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        return self._is_complete and self._body.must_wait(go_on)

    def feed(self, data: bytes) -> None:
        """Raises BodyTooLargeError."""
        self._body.feed(data)

    def end(self) -> None:
        """The body is complete."""
        self._is_complete = True

    def next_message(self) -> bytes | None:
        """The next element, as JSON. Raises FieldError and BodyTooLargeError."""
        if self._is_complete and self._body.data:
            self._body.end()
            self._elements.extend(split_array(self._body.data))
            self._elements_bytes = sum(map(len, self._elements))
            self._body.data = bytearray()
        if not self._elements:
            return None
        element = self._elements.popleft()
        self._elements_bytes -= len(element)
        return element


class RawPieces:
    """A body that is not JSON, for a method that streams its requests: a message for each piece that arrives."""

    __slots__ = ("_bind", "_kept_bytes", "_pieces")

    translate = None
    """There is nothing to translate: they are messages when they are returned."""

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        """`bind` makes the serialised message around a piece, and raises FieldError."""
        self._bind = bind
        self._pieces: deque[bytes] = deque()
        self._kept_bytes: int | None = None
        """None: nothing has come."""

    @property
    def kept_bytes(self) -> int:
        return max(self._kept_bytes or 0, len(self._pieces))

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        return False

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
