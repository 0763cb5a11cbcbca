"""The request stream of one call: it takes items from the caller's iterable as the replica gives credit for them.

Theory of operation. The replica gives credit when it has admitted the call, and again as the method reads. So the
iterable is not touched while the call waits for a place, and is never further ahead than one window. What takes the
items runs where the iterable belongs: in a task of the caller's event loop, or in a thread (`request_source`). The feed
stands between the router and the call's future as the sink of the call: with the end of the call, however it comes, the
iterable is closed. What the iterable raises ends the call, for its caller with that exception, for the method as a
cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.caller.call_future import CallFuture, Wake
from mesh.exceptions import CancelReason, RequestCancelledError
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers, failed, failed_here
from mesh.wire.payload import Payload


class RequestFeed:
    """Sink of a call with a streamed request. Two threads share it; each field is written by one of them."""

    __slots__ = ("_future", "_granted", "_sent", "_stop", "_taken", "_wake", "_write_item", "call", "has_ended")

    def __init__(self, future: CallFuture, write_item: Callable[[Any], Payload]) -> None:
        self._future = future
        self._write_item = write_item
        self.call: OutgoingCall
        self.has_ended = False
        """The call has: no item is wanted any more."""
        self._granted = 0
        """Credits that the replica has given so far."""
        self._sent = 0
        """Those used for items that were sent."""
        self._taken = 0
        """Those used for items that were taken from the iterable."""
        self._wake: Wake | None = None
        self._stop: Wake | None = None

    # ---- Where the iterable runs -------------------------------------------------------------------------------------

    def on_stop(self, stop: Wake) -> None:
        """Have `stop` called, on the I/O thread, when the call ends."""
        self._stop = stop
        if self.has_ended:
            stop()

    @property
    def may_take(self) -> bool:
        """Whether the replica has given credit for one more item."""
        return self._taken < self._granted

    def on_change(self, wake: Wake) -> None:
        """Have `wake` called once when there is credit, or the call has ended."""
        self._wake = wake
        if self.may_take or self.has_ended:
            wake()

    def put(self, item: Any) -> None:
        """Send an item that was taken. Raises UnserializableError, PayloadTooLargeError, or TypeError for a message."""
        payload = self._write_item(item)
        self._taken += payload.credits
        io_thread().call(self._send, payload)

    def finish(self) -> None:
        """The iterable has ended."""
        io_thread().call(self._half_close)

    def fail(self, error: BaseException) -> None:
        """The iterable has raised this: end the call with it."""
        io_thread().call(self._end, failed_here(error))

    def give_up(self) -> None:
        """The task of the iterable was cancelled: nothing follows."""
        io_thread().call(self._end, failed(RequestCancelledError(reason=CancelReason.CLIENT)))

    # ---- On the I/O thread -------------------------------------------------------------------------------------------

    def _send(self, payload: Payload) -> None:
        self._sent += payload.credits
        self.call.send_item(payload)

    def _half_close(self) -> None:
        self.call.half_close()

    def _end(self, outcome: Outcome) -> None:
        self._future.router.end(self.call, outcome, CancelReason.CLIENT)

    # ---- CallSink, on the I/O thread ---------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        self._future.on_item(payload)

    def on_credit(self) -> None:
        self._granted = self._sent + self.call.request_credit
        self._wake_up()

    def on_initial_metadata(self, entries: Trailers) -> None:
        self._future.on_initial_metadata(entries)

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        self._future.on_compression(encoding, skips_next=skips_next)

    def on_done(self, outcome: Outcome) -> None:
        self.has_ended = True
        self._wake_up()
        if self._stop is not None:
            self._stop()
        self._future.on_done(outcome)

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
