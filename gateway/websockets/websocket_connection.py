"""One WebSocket of a client, on its exchange: flow control in both directions, keep-alive, and the end. I/O loop only.

Theory of operation. Messages that are complete wait here until the owner takes them; only when it has taken them all
may the client send more. What is kept, also of a message that is not complete, counts in what the gateway may buffer.
Bytes are read in slices: the next one in the next turn of the loop, or when the messages that wait are taken, once much
has come out of those before; a compressed byte may become a thousand. The owner stops sending while `is_blocked`.
Whichever side closes, the owner gets one `on_closed`, and the exchange ends when both sides have closed, or one has not
answered in time. When the client leaves, bytes that wait are still read in turns, compressed ones as the owner takes
what they become.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Protocol

from gateway.requests.exchange import BrokenBy, Exchange, Fields
from gateway.websockets.websocket_frames import Message, WebSocketFrames
from gateway.websockets.websocket_handshake import Handshake
from mesh.defaults.gateway_settings import GatewaySettings
from mesh.settings import settings

logger = logging.getLogger("mesh.gateway")

BROKEN = 1006
"""Is never sent: the connection broke."""
INTERNAL_FAILURE = 1011
RESTARTING = 1012
TRY_AGAIN_LATER = 1013

_MUCH_BYTES = 1024 * 1024
"""Bytes of messages of one socket that may wait. A slice may exceed it."""
_TURN_BYTES = 512 * 1024
"""Bytes of messages of one socket that are made in one turn of the loop. A slice may exceed it."""
_FRAME_BYTES = 4 * 1024
"""As much as this takes the time of one frame, which may be empty."""


class WebSocketOwner(Protocol):
    """Knows what the messages mean. Called on the I/O loop; must not block or raise."""

    takes_rest: bool
    """Whether messages that came before the client closed or left are of use behind that."""

    def on_messages(self) -> None:
        """Messages have come: `take` them, now or later."""

    def on_writable(self) -> None:
        """All that was sent has left, after `is_blocked` was true."""

    def on_closed(self, code: int, reason: str) -> None:
        """The client has closed, or the connection broke. Called once; only messages that already wait still come."""


class WebSocketConnection:
    """The receiver of the exchange."""

    def __init__(self, exchange: Exchange, handshake: Handshake, owner: WebSocketOwner) -> None:
        self._exchange = exchange
        self._handshake = handshake
        self._owner = owner
        limits = settings().gateway
        self._frames = WebSocketFrames(
            limits.websocket_message_max_bytes, handshake.deflate, limits.websocket_decompressed_max_bytes
        )
        self._messages: deque[Message] = deque()
        self._unread = b""
        """Has come, and is read when the socket is accepted, the messages before it are taken, and it is its turn."""
        self._is_reading = False
        """Slices are being read, or will be in the next turn of the loop."""
        self._kept_bytes = 0
        """As counted in the share of the connection."""
        self._owed_bytes = 0
        """Room that is not given back to the client."""
        self._client = _ClientLife()
        self.is_accepted = False
        self.has_closed = False
        """The owner has had its `on_closed`."""

    def __repr__(self) -> str:
        phase = "closed" if self.has_closed else "open" if self.is_accepted else "handshake"
        return f"<WebSocketConnection {phase}, waiting: {len(self._messages)} messages, {self._kept_bytes} bytes>"

    @property
    def is_blocked(self) -> bool:
        """Whether something waits to be sent; `on_writable` follows."""
        return self._exchange.is_blocked

    # ---- For the owner -----------------------------------------------------------------------------------------------

    def accept(self, subprotocol: str = "", fields: Fields | None = None) -> None:
        """Complete the handshake."""
        accept = [*self._handshake.accept, *(fields or ())]
        if subprotocol:
            accept.append((b"sec-websocket-protocol", subprotocol.encode()))
        self.is_accepted = True
        self._exchange.open_tunnel(accept)
        self._read()

    def send(self, message: Message) -> bool:
        """Send a message. False, and it is lost, if it has to wait and there is no room, or if the socket closes."""
        return self._frames.is_open and self._exchange.send_body(self._frames.encode(message))

    def take(self) -> Message | None:
        """The next message of the client; None if none waits."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        if self.has_closed:
            self._count(self._kept_bytes - _kept_bytes(message))
        if not self._messages and not self._is_reading:
            self._read_later()
        return message

    def close(self, code: int, reason: str = "") -> None:
        """Close an accepted socket; the client has some seconds to answer. What it has sent is not wanted any more."""
        self.drop()
        self._frames.close(code, reason)
        self._flush()
        if not self._is_reading:
            self._read_later()

    def drop(self) -> None:
        """The messages that wait are not wanted any more."""
        self._messages.clear()
        if self._client.left_reason is not None and not self.has_closed:
            self._leave(self._client.left_reason)
        elif self.has_closed or self._exchange.has_ended:
            self._unread = b""
            self._count(0)

    # ---- From the client (ExchangeReceiver) --------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._owed_bytes += len(data)
        self._unread += data
        if self.is_accepted and not self._is_reading and not self._has_much:
            self._read()
        elif not self._keep():
            self._give_up("there is no room for what it has sent")

    def on_end(self) -> None:
        """The client has closed its side of the connection."""
        self._read_rest("")

    def on_broken(self, by: BrokenBy) -> None:
        self._read_rest(by.value)

    def on_writable(self) -> None:
        self._owner.on_writable()

    # ---- Time --------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Called every few seconds: ping a client that is silent, give up one that does not answer."""
        client, limits = self._client, settings().gateway
        has_left_much = client.left_reason is not None and self._has_much
        if not self.is_accepted or (self._exchange.has_ended and not has_left_much):
            return
        if client.was_heard or (self._is_held_back and client.is_silent(now_s, limits)):
            client.heard(now_s)
        if has_left_much or not self._frames.is_open:
            client.closing_at_s = min(client.closing_at_s, now_s)
        if client.is_late(now_s, limits):
            self._give_up("the client did not answer")
        elif client.needs_ping(now_s, limits) and self._frames.is_open and not self.is_blocked:
            client.pinged_at_s = now_s
            self._frames.ping()
            self._flush()

    # ---- Details -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read what has come, until much has been made or has to wait."""
        self._is_reading = True
        made_bytes = 0
        while self._unread and not self._has_much and not self.has_closed and made_bytes < _TURN_BYTES:
            made_bytes += self._read_slice()
        self._is_reading = False
        if self._client.left_reason is not None and not self._unread:
            self._leave(self._client.left_reason)
        elif not self._messages or (self._unread and not self._has_much):
            self._read_later()

    @property
    def _is_held_back(self) -> bool:
        """Whether something of the client waits for the owner: its answer to a ping may stand behind that."""
        return bool(self._messages or self._unread)

    @property
    def _has_much(self) -> bool:
        """Whether messages wait, and much of them. Of a client that has left, compressed bytes only become more."""
        may_grow = self._client.left_reason is None or self._handshake.deflate is not None
        return bool(self._messages) and self._kept_bytes >= _MUCH_BYTES and may_grow

    def _read_slice(self) -> int:
        """Returns the work that it was, in bytes of messages."""
        size = self._frames.slice_bytes
        data, self._unread = self._unread[:size], self._unread[size:]
        self._client.was_heard = True
        before = self._frames.received
        messages = self._frames.receive(data)
        made_bytes = sum(map(len, messages)) + _FRAME_BYTES * (self._frames.received - before)
        self._messages.extend(messages)
        if not self._keep():
            self._frames.fail(TRY_AGAIN_LATER, "the gateway has no room for more messages")
        self._flush()
        if messages:
            self._owner.on_messages()
        closed = self._frames.closed
        if closed is not None:
            self._end(*closed)
        return made_bytes

    def _read_later(self) -> None:
        """All messages are taken: read on in the next turn, or let the client send more if all is read."""
        if not self._unread or self.has_closed:
            self._give_room()
        else:
            self._is_reading = True
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        try:
            self._read()
        except Exception:
            logger.exception("a WebSocket ends: its owner failed")
            self._give_up("the gateway failed")

    def _read_rest(self, reason: str) -> None:
        """Nothing more will come: what is there counts, and is read in turns."""
        if not (self.is_accepted and self._owner.takes_rest and self._unread) or self.has_closed:
            self._leave(reason)
            return
        self._client.left_reason = reason
        if not self._is_reading:
            self._read()

    def _leave(self, reason: str) -> None:
        """End the socket of a client that has left, once its last messages are read."""
        self._client.left_reason = None
        self._end(BROKEN, reason)
        if self.is_accepted:
            self._exchange.end()
        else:
            self._exchange.abort()

    def _flush(self) -> None:
        parts = self._frames.to_send()
        if parts:
            # A client that sends pings and reads no answers gets only the last one.
            data = parts[-1] if self._exchange.is_blocked else b"".join(parts)
            if not self._exchange.send_body(data):
                self._give_up("there is no room for what it is to get")
        if self._frames.is_over:
            self._exchange.end()

    def _keep(self) -> bool:
        """Count what is kept. False if there is no room for it."""
        kept_bytes = len(self._unread) + self._frames.begun_bytes + sum(map(_kept_bytes, self._messages))
        more_bytes = kept_bytes - self._kept_bytes
        if more_bytes > 0 and not self._exchange.share.has_room(more_bytes):
            return False
        self._count(kept_bytes)
        return True

    def _count(self, kept_bytes: int) -> None:
        self._exchange.share.add(kept_bytes - self._kept_bytes)
        self._kept_bytes = kept_bytes

    def _give_room(self) -> None:
        """Let the client send as much more as it has sent."""
        if self._kept_bytes and not self.has_closed:
            self._keep()
        owed_bytes, self._owed_bytes = self._owed_bytes, 0
        if owed_bytes:
            self._exchange.give_room(owed_bytes)

    def _give_up(self, reason: str) -> None:
        self._exchange.abort()
        self._end(BROKEN, reason)

    def _end(self, code: int, reason: str) -> None:
        if not self.has_closed:
            self.has_closed = True
            self._unread = b""
            self._frames.drop_begun()
            if not self._owner.takes_rest:
                self._messages.clear()
            self._count(sum(map(_kept_bytes, self._messages)))
            self._owner.on_closed(code, reason)


def _kept_bytes(message: Message) -> int:
    """A single emoji makes each character of a text take four bytes."""
    return len(message) if isinstance(message, bytes) or message.isascii() else message.__sizeof__()


class _ClientLife:
    """When the client was heard, as the ticks have seen it, and that it has left."""

    __slots__ = ("closing_at_s", "heard_at_s", "left_reason", "pinged_at_s", "was_heard")

    def __init__(self) -> None:
        self.was_heard = True
        """Since the last tick."""
        self.heard_at_s = math.inf
        self.pinged_at_s = math.inf
        """When the ping without an answer was sent."""
        self.closing_at_s = math.inf
        self.left_reason: str | None = None
        """Set once nothing more comes, though what has come is not read yet."""

    def heard(self, now_s: float) -> None:
        self.was_heard = False
        self.heard_at_s = now_s
        self.pinged_at_s = math.inf

    def needs_ping(self, now_s: float, limits: GatewaySettings) -> bool:
        return self.pinged_at_s == math.inf and now_s - self.heard_at_s >= limits.websocket_ping_interval_s

    def is_silent(self, now_s: float, limits: GatewaySettings) -> bool:
        """Whether a ping had no answer."""
        return now_s - self.pinged_at_s >= limits.websocket_ping_timeout_s

    def is_late(self, now_s: float, limits: GatewaySettings) -> bool:
        return self.is_silent(now_s, limits) or now_s - self.closing_at_s >= limits.websocket_close_timeout_s
