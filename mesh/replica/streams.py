"""Owns the two directions of streaming calls inside a replica: credit for responses, and the request iterator."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc.aio

from mesh.settings import settings
from mesh.wire.payload import Payload


class CreditWindow:
    """How many response items may be sent now. Async producers wait on the user loop, others in their thread."""

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._condition = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None
        self.is_stopped = False

    async def acquire(self) -> None:
        """On the user loop, as `add`."""
        while self._credit <= 0:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._credit -= 1

    def add(self, items: int) -> None:
        self._credit += items
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def acquire_blocking(self) -> bool:
        """In a thread; returns False when the consumer is gone."""
        with self._condition:
            while self._credit <= 0 and not self.is_stopped:
                self._condition.wait()
            self._credit -= 1
            return not self.is_stopped

    def add_from_outside(self, items: int) -> None:
        """The counterpart of `acquire_blocking`, from the I/O thread."""
        with self._condition:
            self._credit += items
            self._condition.notify()

    def stop(self) -> None:
        """Nobody consumes any more: wakes a blocked producer."""
        with self._condition:
            self.is_stopped = True
            self._condition.notify()


class RequestStream:
    """The request messages of one call: an async iterator on the user loop, an iterator in a thread.

    Credit goes back to the caller as messages are taken, half a window at a time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, grant: Callable[[int], None], decode: Callable[[Payload], Any]
    ) -> None:
        self._loop = loop
        self._grant = grant
        self._decode = decode
        self._items: deque[Payload] = deque()
        self._is_closed = False
        self._error: Exception | None = None
        self._taken = 0
        self._window = max(1, settings().stream_credit_items // 2)
        self._waiter: asyncio.Future[None] | None = None

    # On the user loop, from the link.

    def on_item(self, payload: Payload) -> None:
        self._items.append(payload)
        self._wake()

    def on_half_close(self) -> None:
        self._is_closed = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The call is over; whoever waits for a message gets the error."""
        self._error = error
        self._wake()

    # For user code.

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> Any:
        message = asyncio.run_coroutine_threadsafe(self.read(), self._loop).result()
        if message is grpc.aio.EOF:
            raise StopIteration
        return message

    async def read(self) -> Any:
        """The next message, grpc.aio.EOF at the end."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_closed:
                return grpc.aio.EOF
            self._waiter = self._loop.create_future()
            await self._waiter
        payload = self._items.popleft()
        self._taken += 1
        if self._taken >= self._window:
            taken, self._taken = self._taken, 0
            self._grant(taken)
        return self._decode(payload)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
