"""The future of one call: the I/O thread resolves it, any thread or event loop may wait on it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.options import option_checks
from mesh.routing.router import Router
from mesh.settings import settings
from mesh.wire.io_thread import io_thread, mailbox_of
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload

Wake = Callable[[], None]


class CallFuture:
    """Sink of one call: keeps its outcome and wakes the waiters. All methods except `on_*` work in any thread."""

    __slots__ = (
        "_header_waiters",
        "_lock",
        "_waiters",
        "call",
        "initial_metadata",
        "is_cancel_requested",
        "outcome",
        "parent",
        "router",
    )

    def __init__(self, router: Router, parent: Request | None) -> None:
        self.router = router
        self.call: OutgoingCall | None = None
        """Set before the call is submitted, cleared when it has ended."""
        self.outcome: Outcome | None = None
        self.is_cancel_requested = False
        self.initial_metadata: Trailers | None = None
        """What the method has sent ahead of its responses; None until it has sent something."""
        self.parent = parent
        self._waiters: list[Wake] | None = None
        self._header_waiters: list[Wake] | None = None
        self._lock = threading.Lock()
        if parent is not None:
            parent.children.add(self)

    def __repr__(self) -> str:
        phase = "done" if self.outcome is not None else "cancelling" if self.is_cancel_requested else "waiting"
        return f"<{type(self).__name__} of {self.router.key}, {phase}>"

    def cancel(self, reason: CancelReason = CancelReason.CLIENT) -> None:
        """Give up the call, wherever it is. Does not block; without effect once it has ended."""
        self.is_cancel_requested = True
        io_thread().call(self._cancel, reason)

    def abandon(self) -> None:
        """Like `cancel`, for finalisers: they run at any point, so even on the I/O thread it takes effect later."""
        self.is_cancel_requested = True
        io_thread().post(self._cancel, CancelReason.CLIENT)

    def when_done(self, wake: Wake) -> None:
        """Call `wake` once the outcome is there: now, or later on the I/O thread."""
        with self._lock:
            if self.outcome is None:
                if self._waiters is None:
                    self._waiters = [wake]
                else:
                    self._waiters.append(wake)
                return
        wake()

    def when_headers(self, wake: Wake) -> None:
        """Call `wake` once the initial metadata is there or the call has ended: now, or later on the I/O thread."""
        with self._lock:
            if self.initial_metadata is None and self.outcome is None:
                self._header_waiters = [*(self._header_waiters or ()), wake]
                return
        wake()

    async def wait(self, *, is_shielded: bool = False) -> Outcome:
        """Wait for the outcome. A task that is cancelled meanwhile gives up the call, unless others wait too.

        The call goes on as well if another request has made it, or `is_shielded`.
        """
        if self.outcome is None:
            future, wake = waiter()
            self.when_done(wake)
            try:
                await future
            except asyncio.CancelledError:
                self._forget(wake)
                if not (is_shielded or self._waiters) and self._is_made_here():
                    self.cancel()
                raise
        assert self.outcome is not None
        return self.outcome

    def wait_blocking(self, timeout_s: float | None) -> Outcome:
        """Wait in a thread without a running loop. Raises TimeoutError; the call goes on."""
        option_checks.seconds("timeout_s", timeout_s)
        if self.outcome is None:
            io_thread().refuse_wait()
            event = threading.Event()
            self.when_done(event.set)
            if not event.wait(lock_timeout_s(timeout_s)):
                self._forget(event.set)
                raise TimeoutError(
                    f"No result within {timeout_s} s{self._why_queued()}. The call goes on: wait again, or cancel it."
                )
        assert self.outcome is not None
        return self.outcome

    async def wait_headers(self) -> None:
        """Wait for the initial metadata or the end of the call. A task that is cancelled meanwhile leaves it alone."""
        if self.initial_metadata is None and self.outcome is None:
            future, wake = waiter()
            self.when_headers(wake)
            try:
                await future
            finally:
                self._forget(wake)

    def wait_headers_blocking(self, timeout_s: float | None) -> None:
        """Wait in a thread for the initial metadata or the end of the call. Raises TimeoutError."""
        option_checks.seconds("timeout_s", timeout_s)
        if self.initial_metadata is None and self.outcome is None:
            io_thread().refuse_wait()
            event = threading.Event()
            self.when_headers(event.set)
            if not event.wait(lock_timeout_s(timeout_s)):
                self._forget(event.set)
                raise TimeoutError(f"No initial metadata within {timeout_s} s{self._why_queued()}. The call goes on.")

    # ---- CallSink, on the I/O thread ---------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        """Only an ItemStream gets items."""

    def on_credit(self) -> None:
        """Only the feed of a request stream gets credit."""

    def on_initial_metadata(self, entries: Trailers) -> None:
        self.initial_metadata = entries
        self._wake_header_waiters()

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        """Meant for gRPC clients: what a handle gets is not compressed."""

    def on_done(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcome = outcome
            wakes, self._waiters = self._waiters, None
        self.call = None
        if self.parent is not None:
            self.parent.children.discard(self)
        if wakes is not None:
            for wake in wakes:
                wake()
        if self._header_waiters is not None:
            self._wake_header_waiters()

    def _wake_header_waiters(self) -> None:
        with self._lock:
            wakes, self._header_waiters = self._header_waiters, None
        for wake in wakes or ():
            wake()

    def _forget(self, wake: Wake) -> None:
        """Remove a waiter that gave up. Otherwise the waiters of repeated timeouts would pile up."""
        with self._lock:
            for waiters in (self._waiters, self._header_waiters):
                if waiters is not None and wake in waiters:
                    waiters.remove(wake)

    def _is_made_here(self) -> bool:
        """Whether the code that runs serves the request that has made the call, or both are for none."""
        return self.parent is REQUEST.get()

    def _why_queued(self) -> str:
        call = self.call  # another thread clears it when the call ends
        why = "" if call is None else self.router.why_queued(call)
        return f": it {why}" if why else ""

    def _cancel(self, reason: CancelReason) -> None:
        if self.call is not None and self.outcome is None:
            self.router.cancel(self.call, reason)


class ItemStream(CallFuture):
    """Sink of a call with a streamed response. Consumers take the items in order; each item goes to one consumer."""

    __slots__ = ("_item_waiters", "_items", "_taken", "_window")

    def __init__(self, router: Router, parent: Request | None) -> None:
        super().__init__(router, parent)
        self._items: deque[Payload] = deque()
        self._taken = 0
        self._window = max(1, settings().payload.stream_credits // 2)
        self._item_waiters: list[Wake] = []

    def take(self) -> Payload | None:
        """The next item if one is here. Credit goes back half a window at a time."""
        if self.is_cancel_requested and not self._has_ended_well:
            self._items.clear()
        if not self._items:
            return None
        try:
            payload = self._items.popleft()
        except IndexError:  # another thread took it
            return None
        credits = payload.credits
        self._taken += credits
        if self._taken >= self._window:
            taken, self._taken = self._taken, 0
            io_thread().call(self._grant, taken)
        return payload

    @property
    def is_exhausted(self) -> bool:
        """No item is here and none will come. `outcome` is read first, because no item follows it."""
        return self.outcome is not None and not self._items

    async def next_item(self) -> Payload | None:
        """The next item, or None at the end. Cancelling the waiting task gives up the call, as in `wait`."""
        while (payload := self.take()) is None and not self.is_exhausted:
            future, wake = waiter()
            self._wait_for_item(wake)
            try:
                await future
            except asyncio.CancelledError:
                if self._is_made_here():
                    self.cancel()
                raise
        return payload

    def next_item_blocking(self) -> Payload | None:
        """Like `next_item`, in a thread without a running loop."""
        while (payload := self.take()) is None and not self.is_exhausted:
            io_thread().refuse_wait()
            event = threading.Event()
            self._wait_for_item(event.set)
            event.wait()
        return payload

    def on_item(self, payload: Payload) -> None:
        self._items.append(payload)
        if self._item_waiters:
            self._wake_consumers()
        if self.initial_metadata is None:  # headers come with the first message at the latest
            self.on_initial_metadata(())

    def on_done(self, outcome: Outcome) -> None:
        super().on_done(outcome)
        self._wake_consumers()

    @property
    def _has_ended_well(self) -> bool:
        outcome = self.outcome
        return outcome is not None and outcome.is_ok

    def _wait_for_item(self, wake: Wake) -> None:
        """Call `wake` at the next event, or now if an item or the outcome arrived just before this."""
        with self._lock:
            self._item_waiters.append(wake)
        if self._items or self.outcome is not None:
            self._wake_consumers()

    def _wake_consumers(self) -> None:
        # Taken in one step: a consumer that waits again in between must not lose its wake-up with the earlier ones.
        if self._item_waiters:
            with self._lock:
                waiters, self._item_waiters = self._item_waiters, []
            for wake in waiters:
                wake()

    def _grant(self, credits: int) -> None:
        if self.call is not None:
            self.call.grant(credits)


def lock_timeout_s(timeout_s: float | None) -> float | None:
    """A checked timeout as locks take it, which know no longer one than 292 years."""
    return None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)


def waiter() -> tuple[asyncio.Future[None], Wake]:
    """A future of the running loop, and what resolves it from any thread, with at most one loop wake-up per batch."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    if loop is io_thread().loop:
        return future, partial(_resolve, future)
    return future, partial(mailbox_of(loop).post, _resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
