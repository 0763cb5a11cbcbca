"""The event loop of user code: in a thread of its own, or the I/O loop if the user asked for that.

In its own thread, user code that blocks cannot stall the wire. Both directions hand over in batches with one wake-up
each.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import uvloop

from mesh.wire.io_thread import Mailbox, io_thread

logger = logging.getLogger("mesh")
T = TypeVar("T")


class UserLoop:
    """The event loop of async user code, and the threads of `def` methods."""

    def __init__(self, *, is_isolated: bool, threads_max: int) -> None:
        self.is_isolated = is_isolated
        self.threads = _pool(threads_max)
        self._threads_max = threads_max
        self._is_stopped = False
        if is_isolated:
            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            self._mailbox = Mailbox(self.loop)
            self._thread = threading.Thread(target=self._run, name="mesh-user", daemon=True)
            self._thread.start()
        else:
            self.loop = io_thread().loop
        io = io_thread()
        self.to_io: Callable[..., None] = io.post if is_isolated else io.call
        """From user code: run `function(*args)` on the I/O loop."""

    @property
    def threads_max(self) -> int:
        return self._threads_max

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """From the I/O loop: run `function(*args)` on the user loop."""
        if self.is_isolated:
            self._mailbox.post(function, *args)
        else:
            function(*args)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """From any other thread: run a coroutine on the user loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def set_threads_max(self, threads_max: int) -> None:
        """Give later calls this many threads; calls that run keep theirs until they end."""
        if threads_max != self._threads_max:
            self._threads_max = threads_max
            self.threads.shutdown(wait=False)
            self.threads = _pool(threads_max)

    def stop(self) -> None:
        """End the threads; what they still run is abandoned."""
        self._is_stopped = True
        self.threads.shutdown(wait=False, cancel_futures=True)
        if self.is_isolated:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._is_stopped:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these out of the loop when a task of user code raises them. The replica goes on.
                logger.exception("a task of user code tried to end the process")


def _pool(threads_max: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads_max, thread_name_prefix="mesh-user-def")
