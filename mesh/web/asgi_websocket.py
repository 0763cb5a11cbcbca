"""One WebSocket in user code: ASGI's `receive` and `send`, and the events between application and gateway."""

from __future__ import annotations

from enum import IntEnum

from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.v1 import web_pb2
from mesh.web.asgi_scope import route_pattern
from mesh.web.asgi_types import ClientGoneError, Message, Scope, WebChannel
from mesh.wire.web_messages import (
    decode_websocket_event,
    encode_accept,
    encode_close,
    encode_denial,
    encode_message,
)

_NORMAL = 1000
_NO_CODE = 1005
_BROKEN = 1006


class WebSocketPhase(IntEnum):
    CONNECTING = 0
    OPEN = 1
    DENYING = 2
    """The application answers the handshake with an HTTP response, of which the head is here."""
    CLOSED = 3
    """By the application, or denied."""


class WebSocketStep(IntEnum):
    ACCEPT = 0
    MESSAGE = 1
    DENY = 2
    DENIAL_BODY = 3
    CLOSE = 4


TRANSITIONS = {
    (WebSocketPhase.CONNECTING, WebSocketStep.ACCEPT): WebSocketPhase.OPEN,
    (WebSocketPhase.CONNECTING, WebSocketStep.DENY): WebSocketPhase.DENYING,
    (WebSocketPhase.CONNECTING, WebSocketStep.CLOSE): WebSocketPhase.CLOSED,
    (WebSocketPhase.DENYING, WebSocketStep.DENIAL_BODY): WebSocketPhase.DENYING,
    (WebSocketPhase.OPEN, WebSocketStep.MESSAGE): WebSocketPhase.OPEN,
    (WebSocketPhase.OPEN, WebSocketStep.CLOSE): WebSocketPhase.CLOSED,
}

_STEPS = {
    "websocket.accept": WebSocketStep.ACCEPT,
    "websocket.send": WebSocketStep.MESSAGE,
    "websocket.close": WebSocketStep.CLOSE,
    "websocket.http.response.start": WebSocketStep.DENY,
    "websocket.http.response.body": WebSocketStep.DENIAL_BODY,
}


class AsgiWebSocket:
    """One WebSocket, from its handshake to its end."""

    __slots__ = ("_channel", "_denial", "_has_connected", "_is_gone", "_scope", "phase")

    def __init__(self, channel: WebChannel, scope: Scope) -> None:
        self._channel = channel
        self._scope = scope
        self._has_connected = False
        self._is_gone = False
        """The client has closed, or its connection broke."""
        self._denial = web_pb2.WebResponse()
        self.phase = WebSocketPhase.CONNECTING

    def __repr__(self) -> str:
        return f"<AsgiWebSocket {self.phase.name}{', client gone' if self._is_gone else ''}>"

    async def receive(self) -> Message:
        """ASGI: the handshake, then messages, at the end why there are no more."""
        if not self._has_connected:
            self._has_connected = True
            return {"type": "websocket.connect"}
        try:
            data = None if self._is_gone else await self._channel.read()
        except ClientGoneError:
            data = None
        if data is None:
            return self._gone(_BROKEN)
        event = decode_websocket_event(data)
        match event.WhichOneof("kind"):
            case "text":
                return {"type": "websocket.receive", "text": event.text}
            case "binary":
                return {"type": "websocket.receive", "bytes": event.binary}
            case "close":
                return self._gone(event.close.code or _NO_CODE, event.close.reason)
            case kind:
                raise RuntimeError(f"unexpected WebSocket event {kind!r} from a gateway")

    async def send(self, message: Message) -> None:
        """ASGI. Raises ClientGoneError when the client has left, RuntimeError for a message out of order."""
        step = _STEPS.get(message["type"])
        if step is None:
            raise RuntimeError(f"The ASGI application sent {message['type']!r} to a WebSocket.")
        if self._is_gone and self.phase is WebSocketPhase.OPEN:
            raise ClientGoneError("The client of the WebSocket has left.")
        self._move(step)
        match step:
            case WebSocketStep.ACCEPT:
                headers = message.get("headers") or ()
                accept = encode_accept(message.get("subprotocol"), headers, route_pattern(self._scope))
                await self._channel.write(accept)
            case WebSocketStep.MESSAGE:
                text = message.get("text")
                await self._channel.write(encode_message(message["bytes"] if text is None else text))
            case WebSocketStep.CLOSE:
                await self._close(message.get("code") or _NORMAL, message.get("reason") or "")
            case _:
                await self._deny(message)

    async def end(self) -> None:
        """The application has returned: close what it left open. Raises RuntimeError if it did not answer."""
        match self.phase:
            case WebSocketPhase.OPEN if self._is_gone:
                self._channel.finish(None)
            case WebSocketPhase.OPEN:
                await self._close(_NORMAL, "")
            case WebSocketPhase.CONNECTING | WebSocketPhase.DENYING:
                raise RuntimeError("The ASGI application returned without an answer to the WebSocket's handshake.")

    def _gone(self, code: int, reason: str = "") -> Message:
        self._is_gone = True
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _close(self, code: int, reason: str) -> None:
        await self._channel.write(encode_close(code, reason))
        self._channel.finish(None)

    async def _deny(self, message: Message) -> None:
        if message["type"] == "websocket.http.response.start":
            self._denial.status = message["status"]
            self._denial.route = route_pattern(self._scope)
            self._denial.headers.extend(bytes(part) for header in message.get("headers", ()) for part in header)
            return
        self._denial.body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            self.phase = WebSocketPhase.CLOSED
            await self._channel.write(encode_denial(self._denial))
            self._channel.finish(None)

    def _move(self, step: WebSocketStep) -> None:
        try:
            self.phase = next_state(TRANSITIONS, self.phase, step)
        except WrongTransitionError as error:
            raise RuntimeError(f"The ASGI application used the WebSocket out of order: {error}.") from None
