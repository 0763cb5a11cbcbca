"""Flow control of streaming calls inside a replica: credit for responses, and the iterator over requests."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc.aio

from mesh.exceptions import CancelReason, MeshException, RequestCancelledError
from mesh.phases.waiting import Waiters
from mesh.settings import settings
from mesh.wire.payload import Payload

_ENDED = (
    "The call has ended: its requests can be read until the method returns, so not by a task that goes on after it."
)


class CreditWindow:
    """How many response items may be sent now.

    Async producers wait on the user loop, others in their thread; a `def` method may turn out to be either.
    """

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._lock = threading.Lock()
        self._has_changed = threading.Condition(self._lock)
        self._waiters = Waiters()
        self._stopped: CancelReason | None = None

    async def acquire(self) -> None:
        """On the user loop. Raises RequestCancelledError when the consumer is gone."""
        if not self.take():
            await self._waiters.until(self.take)

    def take(self) -> bool:
        """What `acquire` does if it need not wait; False if it would have to."""
        with self._lock:
            if self._stopped is not None:
                raise RequestCancelledError(reason=self._stopped)
            if self._credit <= 0:
                return False
            self._credit -= 1
            return True

    def acquire_blocking(self) -> None:
        """In a thread. Raises RequestCancelledError when the consumer is gone."""
        with self._has_changed:
            self._has_changed.wait_for(self._has_news)
        self.take()

    def charge(self, credits: int) -> None:
        """Take `credits` more for the item just acquired for. It may overdraw: the next item then waits longer."""
        with self._lock:
            self._credit -= credits

    def add(self, credits: int) -> None:
        """From any thread; `wake` on the user loop has to follow."""
        with self._lock:
            self._credit += credits
            self._has_changed.notify_all()

    def wake(self) -> None:
        """On the user loop, after `add` and `stop`."""
        self._waiters.wake()

    def stop(self, reason: CancelReason) -> None:
        """The consumer is gone: `acquire` raises from now on. From any thread; `wake` has to follow as after `add`."""
        with self._lock:
            self._stopped = reason
            self._has_changed.notify_all()

    def _has_news(self) -> bool:
        return self._credit > 0 or self._stopped is not None


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
        self._is_cancelled = False
        self._error: Exception | None = None
        self._taken = 0
        self._window = max(1, settings().payload.stream_credits // 2)
        self._waiters = Waiters()

    @property
    def is_closed(self) -> bool:
        """Whether the caller has said that nothing more follows."""
        return self._is_closed

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to read, now and later: all messages have been read, or reading was cancelled."""
        return self._is_cancelled or (self._is_closed and not self._items)

    def is_cancelled(self) -> bool:
        """Whether `cancel` was called, or the call itself was cancelled."""
        return self._is_cancelled or isinstance(self._error, RequestCancelledError)

    def cancel(self) -> None:
        """Read no more: the iteration ends, and the caller stops sending. The call goes on. From any thread."""
        self._is_cancelled = True
        if _runs_here(self._loop):
            self._drop()
        else:
            # Not here: code on the loop may just be about to take one.
            self._loop.call_soon_threadsafe(self._drop)

    # On the user loop, from the link.

    def on_item(self, payload: Payload) -> None:
        if not self._is_cancelled:  # else without credit for more, so that the caller stops
            self._items.append(payload)
            self._waiters.wake()

    def on_half_close(self) -> None:
        self._is_closed = True
        self._waiters.wake()

    def fail(self, error: Exception) -> None:
        """The call has ended: reading a message raises the error from now on."""
        self._error = error
        self._items.clear()
        self._waiters.wake()

    def end(self) -> None:
        """The method has returned, and nothing more arrives. From any thread."""
        self._loop.call_soon_threadsafe(self._end)

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
        if _runs_here(self._loop):
            raise RuntimeError("Iterate over the requests with `async for` in async code: `for` would block the loop.")
        message = asyncio.run_coroutine_threadsafe(self.read(), self._loop).result()
        if message is grpc.aio.EOF:
            raise StopIteration
        return message

    async def read(self) -> Any:
        """The next message, grpc.aio.EOF at the end."""
        if not self._items:
            await self._waiters.until(self._can_read)
            if not self._items:
                return grpc.aio.EOF
        payload = self._items.popleft()
        self._taken += payload.credits
        if self._taken >= self._window:
            taken, self._taken = self._taken, 0
            self._grant(taken)
        return self._decode(payload)

    def _drop(self) -> None:
        self._items.clear()
        self._waiters.wake()

    def _end(self) -> None:
        if not self._is_closed and self._error is None:
            self._error = MeshException(_ENDED)
            self._waiters.wake()

    def _can_read(self) -> bool:
        """Whether a message or the end of the stream is here. Raises the error of a stream that broke off."""
        if self._items or self._is_cancelled:
            return True
        if self._error is not None:
            raise self._error
        return self._is_closed


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
