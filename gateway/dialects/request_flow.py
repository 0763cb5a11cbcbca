"""The body of a request on its way to the replica, at the pace of the replica.

A reader makes messages out of the bytes. It makes the next one only when the replica takes it, so what is kept here are
bytes as they came: as many as the client may send ahead, and one message that is not complete. A small compressed
message that becomes a large one is therefore decompressed only when it can leave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.dialects.method_call import GATEWAY_FAILED, MethodCall
from gateway.requests.exchange import Exchange
from mesh.rpc.message_reader import MessageError
from mesh.rpc.status_codes import INTERNAL, UNIMPLEMENTED

logger = logging.getLogger("mesh.gateway")


class RequestReader(Protocol):
    """Makes the messages of one request out of its bytes."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that are here and not part of a message that was returned."""

    def must_wait(self, go_on: Callable[[], bool]) -> bool:
        """Whether the next message is to be made in a later turn of the loop; `go_on` is called then, once.

        It returns whether it goes on, False if the call has ended. May raise MessageError.
        """

    def feed(self, data: bytes) -> None:
        """Bytes of the body. May raise MessageError."""

    def end(self) -> None:
        """The body is complete. May raise MessageError."""

    def next_message(self) -> bytes | None:
        """The next serialised message, None if none is complete. Raises MessageError for what is none."""


class RequestFlow:
    """Feeds one call with what its client sends."""

    __slots__ = (
        "__weakref__",
        "_awaits_turn",
        "_call",
        "_exchange",
        "_has_ended",
        "_message",
        "_owed_bytes",
        "_reader",
    )

    def __init__(self, exchange: Exchange, call: MethodCall, reader: RequestReader) -> None:
        self._exchange = exchange
        self._call = call
        self._reader = reader
        self._owed_bytes = 0
        """Received, and their room not given back to the client."""
        self._message: bytes | None = None
        """The request of a method that does not stream it."""
        self._has_ended = False
        self._awaits_turn = False
        """Messages may be here, but none is made in this turn of the loop."""

    def begin(self) -> None:
        """Start a call whose request is streamed; others start when their message is here."""
        if self._call.method.streams_request:
            self._exchange.let_pause()
            self._call.start(None)

    def on_body(self, data: bytes) -> None:
        if self._call.is_over:
            return
        self._owed_bytes += len(data)
        try:
            self._reader.feed(data)
            self._forward()
        except Exception as error:
            self._refuse(error)

    def on_message_of_head(self, data: bytes) -> None:
        """The message of a request without a body."""
        try:
            self._reader.feed(data)
        except Exception as error:
            self._refuse(error)

    def on_end(self) -> None:
        self._has_ended = True
        try:
            self._reader.end()
            self._forward()
        except Exception as error:
            self._refuse(error)

    def on_room(self) -> None:
        """The replica takes more."""
        try:
            self._forward()
        except Exception as error:
            self._refuse(error)

    def _forward(self) -> None:
        """Send what the replica takes, and let the client send as much more."""
        if self._call.is_over:
            return
        if self._call.method.streams_request:
            self._forward_stream()
        else:
            self._forward_message()

    def _forward_stream(self) -> None:
        call, reader = self._call, self._reader
        # First: what waits for a turn is kept until then, so nothing without room may begin to.
        if not call.hold(reader.kept_bytes):
            return
        while call.can_send and (message := self._next_message()) is not None:
            call.send(message)
        self._exchange.let_pause(reader.kept_bytes if call.can_send else 0)
        # Without credit, the client waits for the replica: the window of the exchange bounds what is kept.
        if call.hold(reader.kept_bytes) and call.can_send and not self._awaits_turn:
            self._give_room()
        if self._has_ended and not reader.kept_bytes and not call.is_over:
            call.half_close()

    def _forward_message(self) -> None:
        call, reader = self._call, self._reader
        # As above.
        if not call.hold(reader.kept_bytes + len(self._message or b"")):
            return
        while (message := self._next_message()) is not None:
            if self._message is not None:
                raise MessageError(
                    UNIMPLEMENTED, f"{call.method.full_name} takes one request message; another one came."
                )
            self._message = message
        if not call.hold(reader.kept_bytes + len(self._message or b"")):
            return
        self._give_room()
        if self._has_ended and not self._awaits_turn:
            if self._message is None:
                raise MessageError(UNIMPLEMENTED, f"{call.method.full_name} takes one request message; none came.")
            message, self._message = self._message, None
            self._start(message)

    def _start(self, message: bytes) -> None:
        """Start the call with its one request message. May raise MessageError."""
        self._call.start(message)

    def _next_message(self) -> bytes | None:
        """None if none is complete, or if it is to be made in a later turn."""
        if not self._awaits_turn:
            self._awaits_turn = self._reader.must_wait(self._on_turn)
        return None if self._awaits_turn else self._reader.next_message()

    def _on_turn(self) -> bool:
        if self._call.is_over:
            return False
        self._awaits_turn = False
        self.on_room()
        return True

    def _refuse(self, error: Exception) -> None:
        """End the call because of what the client sent, or of a fault of ours."""
        if isinstance(error, MessageError):
            self._call.refuse(error.code, error.text)
        else:
            logger.error("a request of %s was not read", self._call.method.full_name, exc_info=error)
            self._call.refuse(INTERNAL, GATEWAY_FAILED)

    def _give_room(self) -> None:
        if self._owed_bytes:
            owed_bytes, self._owed_bytes = self._owed_bytes, 0
            self._exchange.give_room(owed_bytes)
