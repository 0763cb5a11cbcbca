"""Compression in all dialects: of a response, as its method asks and its client accepts, and the pace of requests.

A request of some kilobytes may hold many messages that become large. So they are decompressed as much in each turn of
the loop as delays other calls little, and the connections take turns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from weakref import WeakMethod

from mesh.http2.frame_format import MESSAGE_PREFIX_BYTES
from mesh.http2.hpack_encoder import encode_field
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.rpc.message_reader import ENCODINGS, MessageError, compressed, decompressed
from mesh.rpc.status_codes import INTERNAL

_MESSAGE_MAX_BYTES = 1024 * 1024
"""A longer message is sent as it is: to compress it would hold up all calls of the gateway for tens of milliseconds."""
TURN_BYTES = 4 * 1024 * 1024
"""Decompressed bytes after which, some milliseconds, the other messages wait for the next turn."""
_MESSAGE_BYTES_MIN = 4 * 1024
"""What a small message counts as, which is about its work."""
_PRESSED_BYTES = 32 * 1024 * 1024
_PRESSED_BYTES_PER_S = 128 * 1024 * 1024
"""The pace while the gateway buffers more than the former: what has been decompressed leaves first."""


class ResponseCompression:
    """Says nothing until the method does; then messages that become smaller are compressed."""

    __slots__ = ("_is_accepted", "_skips_next", "encoding")

    def __init__(self, is_accepted: Callable[[str], bool]) -> None:
        """`is_accepted`: whether the client can read an encoding."""
        self._is_accepted = is_accepted
        self._skips_next = False
        self.encoding = ""
        """What the head of the response has to name; empty: nothing is compressed."""

    @property
    def header(self) -> bytes:
        """The field that tells a client of gRPC, for the headers of the response."""
        return encode_field(b"grpc-encoding", self.encoding.encode()) if self.encoding else b""

    def choose(self, encoding: str) -> None:
        """Before the headers of the response are sent."""
        self.encoding = encoding if encoding in ENCODINGS and self._is_accepted(encoding) else ""

    def skip_next(self) -> None:
        """The next message is to be sent as it is."""
        self._skips_next = True

    def compress(self, message: bytes | memoryview) -> bytes | None:
        """The next message compressed; None if it is to be sent as it is."""
        skips, self._skips_next = self._skips_next, False
        if skips or not self.encoding or len(message) > _MESSAGE_MAX_BYTES:
            return None
        data = compressed(message, self.encoding)
        return data if len(data) < len(message) else None

    def frame(self, message: bytes | memoryview) -> bytes | None:
        """The same with the prefix of gRPC."""
        data = self.compress(message)
        return None if data is None else b"\1" + len(data).to_bytes(MESSAGE_PREFIX_BYTES - 1, "big") + data


class DecompressionTurns:
    """How much is decompressed in a turn of one event loop. On it only."""

    __slots__ = ("_done_bytes", "_is_due", "_is_resuming", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done_bytes = 0
        self._is_due = False
        self._is_resuming = False
        self._waiting: OrderedDict[BufferShare, deque[WeakMethod[Callable[[], bool]]]] = OrderedDict()
        """By connection. Of a call that has ended nothing counts any more, so nothing of it is kept here."""

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop is loop

    @property
    def has_room(self) -> bool:
        """Whether a message may be decompressed now; if not, `wait`."""
        return self._done_bytes < TURN_BYTES and (self._is_resuming or not self._waiting)

    def decompressed(self, share: BufferShare, message: bytes | bytearray, encoding: str, max_bytes: int) -> bytes:
        """A message of the connection with this share, now; it counts for this turn. Raises MessageError."""
        done_bytes = max_bytes
        try:
            plain = decompressed(message, encoding, max_bytes)
            done_bytes = len(plain)
            return plain
        finally:
            self._done_bytes += max(done_bytes, _MESSAGE_BYTES_MIN)
            self._end_soon(share)

    def wait(self, share: BufferShare, resume: Callable[[], bool]) -> None:
        """Call `resume`, a method, once there is room, and after the other connections have had their turns.

        It returns False if its call has ended meanwhile: then it takes no turn, and those that ended with it leave too.
        So do those whose objects are gone, which are not kept by this.
        """
        self._waiting.setdefault(share, deque()).append(WeakMethod(resume))
        self._end_soon(share)

    def _end_soon(self, share: BufferShare) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._end, share.budget)

    def _end(self, budget: BufferBudget) -> None:
        if budget.used_bytes > _PRESSED_BYTES:
            self._loop.call_later(self._done_bytes / _PRESSED_BYTES_PER_S, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._is_due = False
        self._done_bytes = 0
        self._is_resuming = True
        try:
            while self._waiting and self.has_room:
                share, waiting = next(iter(self._waiting.items()))
                self._waiting.move_to_end(share)
                while waiting:
                    resume = waiting.popleft()()
                    if resume is not None and resume():
                        break
                if not waiting:
                    del self._waiting[share]
        finally:
            self._is_resuming = False
            if self._waiting:
                self._end_soon(next(iter(self._waiting)))


_local = threading.local()


def decompression_turns() -> DecompressionTurns:
    """Those of the loop that runs in this thread."""
    loop = asyncio.get_running_loop()
    turns: DecompressionTurns | None = getattr(_local, "turns", None)
    if turns is None or not turns.belongs_to(loop):
        turns = _local.turns = DecompressionTurns(loop)
    return turns


class RequestDecompression:
    """What decompresses the messages of one request that is not gRPC, in the turns of its connection."""

    __slots__ = ("_encoding", "_max_bytes", "_share", "_turns", "_wrong_code")

    def __init__(
        self, turns: DecompressionTurns, share: BufferShare, encoding: str, max_bytes: int, wrong_code: int = INTERNAL
    ) -> None:
        """`share`: of the connection. `encoding`: one of ENCODINGS. `max_bytes`: of one message, decompressed.

        `wrong_code`: of a message that is not of this encoding.
        """
        self._turns = turns
        self._share = share
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._wrong_code = wrong_code

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        """Whether the next message has to wait; `go_on` is called once it need not, see `DecompressionTurns.wait`."""
        if self._turns.has_room:
            return False
        self._turns.wait(self._share, go_on)
        return True

    def plain(self, message: bytes | bytearray) -> bytes:
        """The message. Raises MessageError."""
        try:
            return self._turns.decompressed(self._share, message, self._encoding, self._max_bytes)
        except MessageError as error:
            if error.code == INTERNAL:
                raise MessageError(self._wrong_code, error.text) from None
            raise


def request_decompression(
    share: BufferShare, encoding: str, max_bytes: int, wrong_code: int = INTERNAL
) -> RequestDecompression | None:
    """None if the request names no encoding. `wrong_code`: INTERNAL is that of gRPC."""
    return RequestDecompression(decompression_turns(), share, encoding, max_bytes, wrong_code) if encoding else None
