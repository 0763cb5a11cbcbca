"""`PacedReader`: translates the messages of a request as `PacedCall` does those of a response, for a `RequestFlow`.

A message that is large, or comes in a turn of the loop in which much was translated already, waits; so does what comes
behind it. A thread translates the large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.dialects.request_flow import RequestReader
from gateway.dialects.translation.translation_thread import translate_in_thread
from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES, SMALL_MAX_BYTES, turn_budget


class PacedReader:
    """A RequestReader around another one, whose messages are not translated. On the I/O loop only."""

    __slots__ = ("_has_turn", "_message", "_reader", "_task", "_translate")

    def __init__(self, reader: RequestReader, translate: Callable[[bytes], bytes]) -> None:
        """`translate` makes the serialised message, in any thread, or raises MessageError."""
        self._reader = reader
        self._translate = translate
        self._message: bytes | None = None
        """The next one, while it waits."""
        self._has_turn = False
        self._task: asyncio.Task[bytes] | None = None
        """Translates it, if it is large."""

    @property
    def kept_bytes(self) -> int:
        return self._reader.kept_bytes + len(self._message or b"")

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        """See RequestReader. Raises MessageError."""
        if self._task is not None:
            return False
        if self._message is None:
            if self._reader.must_wait(go_on):
                return True
            self._message = self._reader.next_message()
        size = len(self._message or b"")
        if size > ON_LOOP_MAX_BYTES:
            self._task = asyncio.get_running_loop().create_task(self._translate_in_thread())
            self._task.add_done_callback(partial(_on_translated, go_on))
            return True
        if size <= SMALL_MAX_BYTES:
            return False
        if self._has_turn:
            self._has_turn = False
            turn_budget().spend(size)
        elif not turn_budget().take(size):
            self._has_turn = True
            turn_budget().wait(go_on)
        return self._has_turn

    def feed(self, data: bytes) -> None:
        self._reader.feed(data)

    def end(self) -> None:
        self._reader.end()

    def next_message(self) -> bytes | None:
        task, message = self._task, self._message
        self._task = self._message = None
        if task is not None:
            return task.result()
        return None if message is None else self._translate(message)

    def cancel(self) -> None:
        """The call is over: what waits for a thread is not translated."""
        if self._task is not None:
            self._task.cancel()

    async def _translate_in_thread(self) -> bytes:
        assert self._message is not None, "it is what is translated"
        return await translate_in_thread(len(self._message), self._translate, self._message)


def _on_translated(go_on: Callable[[], bool], task: asyncio.Task[bytes]) -> None:
    if not task.cancelled():
        # What it has raised is of no interest if the call is over.
        task.exception()
        go_on()
