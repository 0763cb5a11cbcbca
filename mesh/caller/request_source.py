"""Where the items of a request stream come from: an async iterable in the caller's event loop, or one in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from mesh.caller.call_future import waiter
from mesh.caller.request_feed import RequestFeed
from mesh.settings import settings
from mesh.wire.io_thread import mailbox_of

logger = logging.getLogger("mesh")


class RequestSource(Protocol):
    """What gives the items."""

    def start(self, feed: RequestFeed) -> None:
        """Give the feed items as there is credit for them, until the call ends; then close the iterable."""


def open_source(iterable: Any, *, is_any_iterable: bool = False) -> RequestSource:
    """The source of an iterable; `is_any_iterable`: also of a list or the like, where only a stream can be meant.

    Raises TypeError for what cannot be iterated over, RuntimeError for an async iterable without a running event loop
    and for too many sync ones at once.
    """
    loop = _running_loop()
    kind = type(iterable)
    if hasattr(kind, "__aiter__") and (loop is not None or not hasattr(kind, "__iter__")):
        if loop is None:
            raise RuntimeError(
                "An async iterable can be streamed only by code that runs in an event loop. Make the call there, or "
                "pass a generator."
            )
        return _AsyncSource(aiter(iterable), loop)
    if not hasattr(kind, "__iter__") or (isinstance(iterable, str | bytes | dict) and is_any_iterable):
        raise TypeError(
            f"The request is streamed: pass an async iterable or an iterable of its messages, not a {kind.__name__}."
        )
    return _ThreadSource(iter(iterable))


class _AsyncSource:
    """Takes the items in a task of the loop that the call was made in."""

    def __init__(self, items: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._has_begun = False
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self, feed: RequestFeed) -> None:
        mailbox = mailbox_of(self._loop)
        task = self._task = self._loop.create_task(self._run(feed), name="mesh-request-stream")
        task.add_done_callback(lambda _: self._close_unbegun(feed))
        feed.on_stop(lambda: mailbox.post(self._stop, task))

    def _stop(self, task: asyncio.Task[None]) -> None:
        # A task that has not begun sees by itself that the call has ended; one that closes must not be interrupted.
        if self._has_begun and not self._is_closing:
            task.cancel()

    def _close_unbegun(self, feed: RequestFeed) -> None:
        """Of a task that was cancelled before its first step, as at the end of `asyncio.run`, nothing has run."""
        if not self._has_begun:
            feed.give_up()
            self._task = self._loop.create_task(self._close(), name="mesh-request-stream")

    async def _run(self, feed: RequestFeed) -> None:
        self._has_begun = True
        try:
            while await self._has_credit(feed):
                try:
                    item = await anext(self._items)
                except StopAsyncIteration:
                    feed.finish()
                    return
                feed.put(item)
        except asyncio.CancelledError:
            if not feed.has_ended:
                feed.give_up()
                raise
        except BaseException as error:
            feed.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            await self._close()

    async def _has_credit(self, feed: RequestFeed) -> bool:
        while not feed.may_take and not feed.has_ended:
            future, wake = waiter()
            feed.on_change(wake)
            await future
        return not feed.has_ended

    async def _close(self) -> None:
        self._is_closing = True
        close = getattr(self._items, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:
            logger.exception("closing the iterable of a request stream failed")


class _ThreadSource:
    """Takes the items in a thread of its own, because they may be waited for as long as the call lasts."""

    def __init__(self, items: Iterator[Any]) -> None:
        if not _threads().acquire(blocking=False):
            raise RuntimeError(
                f"{settings().payload.request_stream_threads_max} generators are being streamed by threads of this "
                "process. Pass async iterables, which need no thread, or raise MESH_REQUEST_STREAM_THREADS_MAX."
            )
        self._items = items

    def start(self, feed: RequestFeed) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._run, feed), name="mesh-request-stream", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            _threads().release()
            raise

    def _run(self, feed: RequestFeed) -> None:
        try:
            self._take_all(feed)
        except BaseException as error:  # a thread of the mesh: nothing that user code raises may leave it
            feed.fail(error)
        finally:
            try:
                self._close()
            finally:
                _threads().release()

    def _take_all(self, feed: RequestFeed) -> None:
        while self._has_credit(feed):
            try:
                item = next(self._items)
            except StopIteration:
                feed.finish()
                return
            if feed.has_ended:
                return
            feed.put(item)

    def _has_credit(self, feed: RequestFeed) -> bool:
        while not feed.may_take and not feed.has_ended:
            changed = threading.Event()
            feed.on_change(changed.set)
            changed.wait()
        return not feed.has_ended

    def _close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException:  # as above
            logger.exception("closing the generator of a request stream failed")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_lock = threading.Lock()
_thread_slots: threading.Semaphore | None = None


def _threads() -> threading.Semaphore:
    """One for each thread that may run."""
    global _thread_slots
    with _lock:
        if _thread_slots is None:
            _thread_slots = threading.Semaphore(settings().payload.request_stream_threads_max)
        return _thread_slots
