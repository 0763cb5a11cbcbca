"""Owns where a call's responses, from the I/O thread, meet whoever waits for them, in any loop or thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from mesh.context import Request
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.router import Router
from mesh.settings import settings
from mesh.wire.io_thread import io_thread, mailbox_of
from mesh.wire.outcome import Outcome
from mesh.wire.payload import Payload

Wake = Callable[[], None]


class CallFuture:
    """Sink of one call: keeps its outcome and wakes the waiters. Every method but `on_*` may be called anywhere."""

    __slots__ = ("_lock", "_parent", "_waiters", "call", "is_cancel_requested", "outcome", "router")

    def __init__(self, router: Router, parent: Request | None) -> None:
        self.router = router
        self.call: OutgoingCall | None = None
        """Set before the call is submitted, cleared when it has ended."""
        self.outcome: Outcome | None = None
        self.is_cancel_requested = False
        self._parent = parent
        self._waiters: list[Wake] | None = None
        self._lock = threading.Lock()
        if parent is not None:
            parent.children.add(self)

    def cancel(self, reason: CancelReason = CancelReason.CLIENT) -> None:
        """Give up the call, wherever it is. Does not block; without effect once it has ended."""
        self.is_cancel_requested = True
        io_thread().call(self._cancel, reason)

    def abandon(self) -> None:
        """Like `cancel`, from a finaliser: those run anywhere, so even on the I/O thread nothing happens at once."""
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

    async def wait(self) -> Outcome:
        """Wait for the outcome. A task that is cancelled while it waits gives up the call."""
        try:
            return await self.wait_shielded()
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def wait_shielded(self) -> Outcome:
        """Wait for the outcome of a call that others wait for too: it goes on when this wait is cancelled."""
        if self.outcome is None:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            wake = _waker(loop, future)
            self.when_done(wake)
            try:
                await future
            except asyncio.CancelledError:
                self._forget(wake)
                raise
        assert self.outcome is not None
        return self.outcome

    def wait_blocking(self, timeout_s: float | None) -> Outcome:
        """Wait in a thread without a running loop. Raises TimeoutError; the call goes on."""
        if self.outcome is None:
            io_thread().require()
            event = threading.Event()
            self.when_done(event.set)
            if not event.wait(timeout_s):
                self._forget(event.set)
                raise TimeoutError(f"No result within {timeout_s} s. The call goes on: wait again, or cancel it.")
        assert self.outcome is not None
        return self.outcome

    def _forget(self, wake: Wake) -> None:
        """Whoever gave it waits no more. Those who ask again and again would pile up."""
        with self._lock:
            if self._waiters is not None:
                self._waiters.remove(wake)

    # ---- CallSink, on the I/O thread ---------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        """Only streaming replies get items."""

    def on_credit(self) -> None:
        """Handle calls send no request stream."""

    def on_done(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcome = outcome
            wakes, self._waiters = self._waiters, None
        self.call = None
        if self._parent is not None:
            self._parent.children.discard(self)
        if wakes is not None:
            for wake in wakes:
                wake()

    def _cancel(self, reason: CancelReason) -> None:
        if self.call is not None and self.outcome is None:
            self.router.cancel(self.call, reason)


class ItemStream(CallFuture):
    """Sink of a call with a streamed response: consumers take its items in order, each item goes to one of them."""

    __slots__ = ("_items", "_taken", "_window", "_woken")

    def __init__(self, router: Router, parent: Request | None) -> None:
        super().__init__(router, parent)
        self._items: deque[Payload] = deque()
        self._taken = 0
        self._window = max(1, settings().payload.stream_credits // 2)
        self._woken: Wake | None = None

    def take(self) -> Payload | None:
        """The next item if one is here. Credit goes back half a window at a time."""
        if self.is_cancel_requested and not self._has_ended_well:
            self._items.clear()
        if not self._items:
            return None
        try:
            payload = self._items.popleft()
        except IndexError:  # another thread was faster
            return None
        credits = payload.credits
        self._taken += credits
        if self._taken >= self._window:
            taken, self._taken = self._taken, 0
            io_thread().call(self._grant, taken)
        return payload

    @property
    def _has_ended_well(self) -> bool:
        outcome = self.outcome
        return outcome is not None and outcome.is_ok

    @property
    def is_exhausted(self) -> bool:
        """No item is here and none will come. Read `outcome` first: items never follow it."""
        return self.outcome is not None and not self._items

    async def next_item(self) -> Payload | None:
        """The next item, or None at the end. Cancelling the waiting task gives up the call."""
        while (payload := self.take()) is None and not self.is_exhausted:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            self._wake_me(_waker(loop, future))
            try:
                await future
            except asyncio.CancelledError:
                self.cancel()
                raise
        return payload

    def next_item_blocking(self) -> Payload | None:
        while (payload := self.take()) is None and not self.is_exhausted:
            io_thread().require()
            event = threading.Event()
            self._wake_me(event.set)
            event.wait()
        return payload

    def on_item(self, payload: Payload) -> None:
        self._items.append(payload)
        self._wake_consumer()

    def on_done(self, outcome: Outcome) -> None:
        super().on_done(outcome)
        self._wake_consumer()

    def _wake_me(self, wake: Wake) -> None:
        """Ask for one wake-up. What arrived before the asking was heard is looked for once more."""
        with self._lock:
            earlier = self._woken
            self._woken = wake if earlier is None else _both(earlier, wake)
        if self._items or self.outcome is not None:
            self._wake_consumer()

    def _wake_consumer(self) -> None:
        # Taken in one step: a consumer that asks again in between would lose its wake-up with the old one.
        with self._lock:
            wake, self._woken = self._woken, None
        if wake is not None:
            wake()

    def _grant(self, credits: int) -> None:
        if self.call is not None:
            self.call.grant(credits)


def _waker(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> Wake:
    """Resolves a future of this thread's loop from any thread, with at most one loop wake-up per batch."""
    if loop is io_thread().loop:
        return lambda: _resolve(future)
    mailbox = mailbox_of(loop)
    return lambda: mailbox.post(_resolve, future)


def _both(first: Wake, second: Wake) -> Wake:
    def wake() -> None:
        first()
        second()

    return wake


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
