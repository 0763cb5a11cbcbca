"""The I/O thread: one uvloop event loop per process that owns every grpc.aio object.

grpc.aio polls one completion queue per process; with several loops every wake-up goes to all of them, completions are
forwarded between threads. Hence one loop, in a thread of its own, so that user code that blocks cannot stall the wire.

Handing work to the loop wakes it at most once per batch: the first item of an idle mailbox schedules a drain, the
items that arrive before the drain runs ride along.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from threading import get_ident
from typing import Any, TypeVar

import uvloop

from mesh.exceptions import MeshException
from mesh.http2.write_turn import write_turn

logger = logging.getLogger("mesh")
T = TypeVar("T")


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The exception handler of our loops: asyncio's own, without what grpc.aio does by design.

    Its loops share one pipe: each wakes when any has an event, and all but one then find nothing to read.
    """
    message = str(context.get("message", ""))
    if not (isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue." in message):
        loop.default_exception_handler(context)


class Mailbox:
    """Runs functions on a loop in the order they were posted, from any thread, one wake-up per batch."""

    __slots__ = ("_context", "_is_scheduled", "_items", "_writes", "loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context | None = None, *, writes: bool = False
    ) -> None:
        """`context`: what the functions run in; None for an empty one.

        `writes`: the functions send on connections; what those of a batch send is written in one WriteTurn.
        """
        self.loop = loop
        self._context = context if context is not None else Context()
        """Without the variables of the code that happens to wake the loop: what it starts may live on for long."""
        self._items: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_scheduled = False
        self._writes = writes

    def post(self, function: Callable[..., None], *args: Any) -> None:
        self._items.append((function, args))
        if not self._is_scheduled:
            # Two threads may both see False: the loop is then woken twice, which is harmless.
            self._is_scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._drain, context=self._context)
            except RuntimeError:  # the loop was closed: it runs nothing any more
                self._items.clear()
                self._is_scheduled = False

    def _drain(self) -> None:
        # Cleared first: an item appended from here on schedules the next drain or is taken by this one.
        self._is_scheduled = False
        items = self._items
        turn = write_turn() if self._writes else None
        if turn is not None:
            turn.begin()
        try:
            for _ in range(len(items)):
                function, args = items.popleft()
                try:
                    function(*args)
                except Exception:
                    logger.exception("a function posted to an event loop failed: %r", function)
                if turn is not None:
                    turn.write_early()
        finally:
            if turn is not None:
                turn.end()


class IoThread:
    """The I/O loop and the ways to hand work to it."""

    def __init__(self) -> None:
        # The loop keeps the context that it is made in.
        self.loop = Context().run(uvloop.new_event_loop)
        self.loop.set_exception_handler(log_loop_error)
        self.mailbox = Mailbox(self.loop, writes=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.thread = threading.Thread(target=self._run, name="mesh-io", daemon=True)
        self.thread.start()

    def __repr__(self) -> str:
        return f"<IoThread alive={self.thread.is_alive()} tasks={len(self._tasks)}>"

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Run `function(*args)` on the loop soon. Thread-safe, keeps the order."""
        self.mailbox.post(function, *args)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Run `function(*args)` on the loop: immediately when called there, else soon. Thread-safe."""
        if get_ident() == self.thread.ident:
            function(*args)
        else:
            self.mailbox.post(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for it, from any other thread.

        Raises TimeoutError after `timeout_s`; the coroutine is then cancelled.
        """
        self.refuse_wait()
        future = self.submit(coroutine)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop from any other thread, without the caller's context variables."""
        return Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that this thread owns, without the caller's context variables. On the loop only."""
        task = self.loop.create_task(coroutine, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def require(self) -> None:
        """Raises MeshException where the thread cannot be used."""

    def refuse_wait(self) -> None:
        """Raises RuntimeError on the thread itself, where what is waited for could not happen meanwhile."""
        if get_ident() == self.thread.ident:
            raise RuntimeError(
                "This would block the event loop that brings the response, and never end. Await the response instead, "
                "or leave out `isolate_user_loop=False`, which runs async user code on that loop."
            )

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("task %s failed", task.get_name(), exc_info=task.exception())

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these out of the loop when a task raises them: one of user code that is not isolated.
                # Without this thread the process would neither serve nor end.
                logger.exception("a task on the I/O thread tried to end the process")


class _LeftBehind(IoThread):
    """Stands in a forked process for the thread of its parent: neither threads nor gRPC follow a fork."""

    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<IoThread of the parent process>"

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Does nothing: only finalisers of the parent's objects call this in a forked process."""

    def require(self) -> None:
        raise MeshException(
            "This process was forked from one that uses the mesh, and cannot use it itself. Start a new process "
            "instead, for example with multiprocessing.get_context('spawn')."
        )

    def __getattr__(self, name: str) -> Any:
        self.require()


_local = threading.local()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of the loop that runs in this thread."""
    mailbox: Mailbox | None = getattr(_local, "mailbox", None)
    if mailbox is None or mailbox.loop is not loop:
        mailbox = _local.mailbox = Mailbox(loop)
    return mailbox


_lock = threading.Lock()
_instance: IoThread | None = None


def _leave_behind() -> None:
    global _instance, _lock
    _lock = threading.Lock()
    if _instance is not None:
        _instance = _LeftBehind()


os.register_at_fork(after_in_child=_leave_behind)


def io_thread() -> IoThread:
    """The I/O thread of this process, started on first use."""
    global _instance
    if _instance is None:
        with _lock:
            if _instance is None:
                _instance = IoThread()
    return _instance
