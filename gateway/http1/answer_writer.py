"""`AnswerWriter`: bytes on their way to one client, no faster than the socket takes them."""

from __future__ import annotations

from collections import deque
from typing import Any

from mesh.http2.limits import BufferShare

WRITE_BUFFER_BYTES = 256 * 1024
"""What the socket may hold back before the connection stops writing."""
_PIECE_BYTES = 256 * 1024
_JOIN_BYTES_MAX = 64 * 1024
"""Up to this size pieces are copied into one buffer; above that, each is handed to the socket as it is."""


class AnswerWriter:
    """The sending end of one connection. What the socket does not take waits here, and counts as buffered.

    So does what the client sends ahead, whose answers it will have to wait for.
    """

    __slots__ = ("_socket", "_waiting", "ahead_bytes", "is_paused", "share")

    def __init__(self, socket: Any, share: BufferShare) -> None:
        """`socket`: an asyncio transport."""
        socket.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._socket = socket
        self.share = share
        self._waiting: deque[memoryview] = deque()
        self.is_paused = False
        """Set while the socket takes no more."""
        self.ahead_bytes = 0
        """What its client has sent ahead of the present request, as far as it is counted."""

    @property
    def is_blocked(self) -> bool:
        return self.is_paused or bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self._waiting))

    def write(self, *pieces: bytes | memoryview) -> bool:
        """All of them in one go. False, and not sent, if they have to wait and there is no room for them."""
        size = sum(map(len, pieces))
        if self.is_paused or self._waiting or size > _PIECE_BYTES:
            if not self.share.has_room(size):
                return False
            self.share.add(size)
            self._waiting.extend(memoryview(piece) for piece in pieces if piece)
            self._pump()
        elif len(pieces) == 1:
            self._socket.write(pieces[0])
        elif size <= _JOIN_BYTES_MAX:
            self._socket.write(b"".join(pieces))
        else:
            self._socket.writelines(pieces)
        return True

    def resume(self) -> None:
        """The socket takes more."""
        self.is_paused = False
        self._pump()

    def drop(self) -> None:
        """What waits is not sent, and nothing is read any more."""
        self.share.add(-self.waiting_bytes - self.ahead_bytes)
        self.ahead_bytes = 0
        self._waiting.clear()

    def count_ahead(self, size: int) -> bool:
        """Count `size` bytes as sent ahead, instead of those before. False, and not counted, if there is no room."""
        more_bytes = size - self.ahead_bytes
        if more_bytes > 0 and not self.share.has_room(more_bytes):
            return False
        self.share.add(more_bytes)
        self.ahead_bytes = size
        return True

    def _pump(self) -> None:
        # The socket may call pause_writing inside write.
        while self._waiting and not self.is_paused:
            piece = self._waiting.popleft()
            if len(piece) > _PIECE_BYTES:
                self._waiting.appendleft(piece[_PIECE_BYTES:])
                piece = piece[:_PIECE_BYTES]
            self.share.add(-len(piece))
            self._socket.write(piece)
