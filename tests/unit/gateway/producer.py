"""A replica behind a fake router that produces more than a slow client takes."""

from __future__ import annotations

from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.fakes import FakeRouter, finish

MESSAGE = b"x" * 60_000
COUNT = 800
"""More than fits into credit, windows and buffers of sockets together."""


class Producer:
    """A replica that sends messages as far as it has credit."""

    def __init__(self, message: bytes = MESSAGE) -> None:
        self.message = message
        self.first = b""
        """Sent before the messages."""
        self.sent = 0
        self.credit = settings().payload.stream_credits
        self._is_sending = False
        self.router = FakeRouter(self.send)
        self.router.link.send_credit = self._on_credit  # type: ignore[method-assign]

    @property
    def is_out_of_credit(self) -> bool:
        return self.credit < raw(self.message).credits

    def send(self, call: OutgoingCall) -> None:
        if self._is_sending:
            return
        self._is_sending = True
        if self.first:
            first, self.first = self.first, b""
            self.credit -= 1
            call.sink.on_item(raw(first))
        while self.sent < COUNT and not self.is_out_of_credit:
            self.sent += 1
            self.credit -= raw(self.message).credits
            call.sink.on_item(raw(self.message))
        self._is_sending = False
        if self.sent == COUNT:
            finish(call, Outcome())

    def _on_credit(self, call: OutgoingCall, credits: int) -> None:
        self.credit += credits
        self.send(call)
