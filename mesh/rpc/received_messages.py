"""`ReceivedMessages`: the messages of one direction of one stream that were not read yet, and the room they take."""

from __future__ import annotations

from collections import deque

from mesh.http2.stream import Stream
from mesh.rpc.message_reader import MessageReader


class ReceivedMessages:
    """What is read is given back to the peer's window once all that has come was read."""

    __slots__ = ("_held_bytes", "_max_bytes", "_messages", "_reader")

    def __init__(self, max_bytes: int, encoding: str = "") -> None:
        """`max_bytes`: of one message."""
        self._max_bytes = max_bytes
        self._reader = MessageReader(max_bytes, encoding)
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        """Received, and not given back to the window."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_between(self) -> bool:
        """Whether no message has begun that is not complete."""
        return self._reader.is_between

    @property
    def begun_bytes(self) -> int:
        """Bytes of a message that is not complete."""
        return self._reader.begun_bytes

    def set_encoding(self, encoding: str) -> None:
        """Before any bytes have come."""
        self._reader = MessageReader(self._max_bytes, encoding)

    def feed(self, stream: Stream, data: bytes | memoryview) -> None:
        """Bytes from the peer. Raises MessageError."""
        self._messages.extend(self._reader.feed(data))
        if self._messages:
            self._held_bytes += len(data)
        else:
            # A message may be larger than the window.
            stream.connection.give_room(stream, len(data))

    def first(self) -> bytes:
        """The oldest message, which stays."""
        return self._messages[0]

    def pop(self, stream: Stream | None) -> bytes:
        """The oldest message."""
        message = self._messages.popleft()
        if not self._messages and stream is not None and not stream.has_ended:
            stream.connection.give_room(stream, self._held_bytes)
            self._held_bytes = 0
        return message
