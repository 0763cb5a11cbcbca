"""`WriteTurn`: what is to be written at the end of the present turn of an event loop.

Bytes read at once bring many calls, and a batch of results posted to the loop many answers. Each connection is written
once when all of that is done: no answer waits for a timer, and none costs a system call of its own.
Where each socket brings one request, as with HTTP/1.1, many sockets that are read in one go of the loop share a turn.

A long turn writes early: `ENOUGH` messages keep a peer busy on its core while this process works on the next ones here.
Otherwise a hundred calls that came together would go from process to process together, and one core would always wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("mesh.http2")

ENOUGH = 16
"""Messages after which a turn writes: with fewer, processes on one core wake each other often; 32 is too many."""


class WriteTurn:
    """Belongs to one event loop, and is used on it only."""

    __slots__ = ("_depth", "_due", "_ends_soon", "large_reads", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._depth = 0
        self._due: list[Callable[[], None]] = []
        self._ends_soon = False
        self.large_reads = 0
        """Of all connections of clients since the loop has had its turn; counted by those that read."""
        self.waiting = 0
        """Messages that were added to what is due since the last write; counted by those that have them written."""

    def begin(self) -> None:
        """Until `end`, writing waits; may be nested."""
        self._depth += 1

    def end(self) -> None:
        """Write all that waits, if this ends the outermost turn."""
        self._depth -= 1
        if not self._depth:
            self._write()

    def end_soon(self) -> None:
        """The same, but what waits is written after the other sockets that the loop has found readable."""
        self._depth -= 1
        if self._depth:
            return
        if self.waiting >= ENOUGH:
            self._write()
        elif self._due and not self._ends_soon:
            self._ends_soon = True
            self.loop.call_soon(self._end_now)

    def write_early(self) -> None:
        """Write what waits if it is enough, and go on with the turn. To be called between two messages."""
        if self.waiting >= ENOUGH and self._depth:
            self._write()

    def add(self, write: Callable[[], None]) -> None:
        """Call `write` at the end of the turn; where none has begun, soon."""
        if self._depth:
            self._due.append(write)
        else:
            self.loop.call_soon(write)

    def _end_now(self) -> None:
        self._ends_soon = False
        if not self._depth:
            self._write()

    def _write(self) -> None:
        self.waiting = 0
        while self._due:
            due, self._due = self._due, []
            for write in due:
                try:
                    write()
                except Exception:
                    logger.exception("%r failed; what else is due is written", write)


_local = threading.local()


def write_turn() -> WriteTurn:
    """The turn of the loop that runs in this thread."""
    loop = asyncio.get_running_loop()
    turn: WriteTurn | None = getattr(_local, "turn", None)
    if turn is None or turn.loop is not loop:
        turn = _local.turn = WriteTurn(loop)
    return turn
