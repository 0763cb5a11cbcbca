"""The event loop of user code: in a thread of its own, or the I/O loop if the user asked for that.

In its own thread, user code that blocks cannot stall the wire. Both directions hand over in batches with one wake-up
each.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, TypeVar

import uvloop

from mesh.wire.io_thread import Mailbox, io_thread, log_loop_error

logger = logging.getLogger("mesh")
T = TypeVar("T")


class UserLoop:
    """The event loop of async user code, and the threads of `def` methods."""

    def __init__(
        self, *, is_isolated: bool, threads_max: int, context: Context | None = None, name: str = "mesh-user"
    ) -> None:
        """`context`: a copy of it is what calls run in; None for an empty one. Only a loop of its own can have one.

        `name` begins the names of its threads.
        """
        self.is_isolated = is_isolated
        self.context = context if context is not None else Context()
        self._name = name
        self.threads = _pool(threads_max, name)
        self._threads_max = threads_max
        self._is_stopped = False
        if is_isolated:
            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            self.loop.set_exception_handler(log_loop_error)
            self.post: Callable[..., None] = Mailbox(self.loop, self.context.copy()).post
            """From the I/O loop: run `function(*args)` on the user loop."""
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        else:
            self.loop = io_thread().loop
            self.post = _run_here
        io = io_thread()
        self.to_io: Callable[..., None] = io.mailbox.post if is_isolated else io.call
        """From user code: run `function(*args)` on the I/O loop."""

    def __repr__(self) -> str:
        kind = "isolated" if self.is_isolated else "on the I/O loop"
        return f"<UserLoop {kind}, {'stopped' if self._is_stopped else 'running'}, at most {self._threads_max} threads>"

    @property
    def threads_max(self) -> int:
        return self._threads_max

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """From any other thread: run a coroutine on the user loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def set_threads_max(self, threads_max: int) -> None:
        """Give later calls this many threads; calls that run keep theirs until they end."""
        if threads_max != self._threads_max:
            self._threads_max = threads_max
            before, self.threads = self.threads, _pool(threads_max, self._name)
            # On the user loop: its code may just be about to use the pool that it has read.
            self.post(functools.partial(before.shutdown, wait=False))

    def stop(self) -> None:
        """End the threads; what they still run is abandoned."""
        self._is_stopped = True
        self.threads.shutdown(wait=False, cancel_futures=True)
        if self.is_isolated:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def close(self, timeout_s: float) -> None:
        """Like `stop` for an isolated loop of a process that lives on: cancel its tasks and wait until all has ended.

        What user code blocks for longer than `timeout_s` is abandoned. From any other thread.
        """
        end_at_s = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            self.submit(_end_tasks()).result(timeout_s)
        self.stop()
        pool_end = threading.Thread(target=self.threads.shutdown, name="mesh-user-end", daemon=True)
        pool_end.start()
        for thread in (self._thread, pool_end):
            thread.join(max(0.0, end_at_s - time.monotonic()))
        if self._thread.is_alive():
            logger.warning("user code blocks its event loop: its thread is abandoned")
        else:
            self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._is_stopped:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these out of the loop when a task of user code raises them. The replica goes on.
                logger.exception("a task of user code tried to end the process")


def _run_here(function: Callable[..., None], *args: Any) -> None:
    function(*args)


async def _end_tasks() -> None:
    """Cancel every other task of this loop, and close its generators and threads."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


def _pool(threads_max: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads_max, thread_name_prefix=f"{name}-def")
