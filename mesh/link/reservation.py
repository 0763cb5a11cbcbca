"""A reserved place of a replica: a call without user code, which holds its place until its caller ends it."""

from __future__ import annotations

from collections.abc import Callable

from mesh.exceptions import CancelReason
from mesh.link.callee_link import IncomingCall
from mesh.wire.outcome import Outcome, cancelled
from mesh.wire.payload import Payload


class Reservation:
    """The link's RunningCall. Its headers say that the place is taken, the end of its request gives it back."""

    __slots__ = ("_conclude", "call")

    def __init__(self, call: IncomingCall, conclude: Callable[[IncomingCall, Outcome], None]) -> None:
        self.call = call
        self._conclude = conclude

    def hand_over(self) -> None:
        """Tell the caller that it has the place."""
        self.call.send_initial_metadata(())

    def on_item(self, payload: Payload) -> None:
        """There are none."""

    def on_half_close(self) -> None:
        if self.call.cancel_reason is None:
            self._conclude(self.call, Outcome())

    def on_credit(self, credits: int) -> None:
        """Nothing is sent."""

    def cancel(self, reason: CancelReason) -> None:
        self._conclude(self.call, cancelled(reason))
