"""One HTTP request in user code: ASGI's `receive` and `send`, and the response on its way to the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from mesh.phases.transitions import WrongTransitionError, next_state
from mesh.web.asgi_scope import route_pattern
from mesh.web.asgi_types import ClientGoneError, Message, Scope, WebChannel
from mesh.wire.web_messages import encode_response

PIECE_MAX_BYTES = 256 * 1024
"""Bytes of a body in one item: less than what links cut into parts."""

_DISCONNECT = "http.disconnect"


class ResponsePhase(IntEnum):
    IDLE = 0
    STARTED = 1
    """The application has given its head, which leaves with the first piece of the body."""
    STREAMING = 2
    COMPLETE = 3


class ResponseEvent(IntEnum):
    START = 0
    PIECE = 1
    LAST = 2


TRANSITIONS = {
    (ResponsePhase.IDLE, ResponseEvent.START): ResponsePhase.STARTED,
    (ResponsePhase.STARTED, ResponseEvent.PIECE): ResponsePhase.STREAMING,
    (ResponsePhase.STARTED, ResponseEvent.LAST): ResponsePhase.COMPLETE,
    (ResponsePhase.STREAMING, ResponseEvent.PIECE): ResponsePhase.STREAMING,
    (ResponsePhase.STREAMING, ResponseEvent.LAST): ResponsePhase.COMPLETE,
}


class HttpCall:
    """One request. A response that is complete in one piece leaves as one message."""

    __slots__ = ("_body", "_channel", "_head", "_is_head_request", "_is_read", "_scope", "phase")

    def __init__(self, body: bytes, channel: WebChannel, scope: Scope) -> None:
        self._channel = channel
        self._scope = scope
        self._body: bytes | None = None if channel.is_streamed else body
        """The whole body, until it is read; None for one that is streamed."""
        self._is_read = False
        self._head: tuple[int, Iterable[Iterable[bytes]]] = (0, ())
        self._is_head_request = scope["method"] == "HEAD"
        self.phase = ResponsePhase.IDLE

    def __repr__(self) -> str:
        return f"<HttpCall of {self._scope['path']}, {self.phase.name}>"

    async def receive(self) -> Message:
        """ASGI: the body, in pieces if it is streamed; then, when that has happened, that the client has left."""
        if not self._is_read:
            if self._body is not None:
                body, self._body = self._body, b""
                self._is_read = True
                return {"type": "http.request", "body": body, "more_body": False}
            try:
                piece = await self._channel.read()
            except ClientGoneError:
                return {"type": _DISCONNECT}
            self._is_read = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        await self._channel.ended()
        return {"type": _DISCONNECT}

    async def send(self, message: Message) -> None:
        """ASGI. Raises ClientGoneError when the client has left, RuntimeError for a message out of order."""
        kind = message["type"]
        if kind == "http.response.start":
            self._move(ResponseEvent.START)
            self._head = message["status"], message.get("headers", ())
        elif kind != "http.response.body":
            raise RuntimeError(f"The ASGI application sent {kind!r} in answer to an HTTP request.")
        elif message.get("more_body", False):
            await self._send_piece(message.get("body", b""))
        else:
            await self._send_last(message.get("body", b""))

    async def respond(self, status: int, headers: Iterable[Iterable[bytes]], body: bytes | memoryview) -> None:
        """The whole response at once."""
        self._move(ResponseEvent.START)
        self._head = status, headers
        await self._send_last(body)

    def check_complete(self) -> None:
        """The application has returned. Raises RuntimeError if its response is not complete."""
        if self.phase is not ResponsePhase.COMPLETE:
            raise RuntimeError("The ASGI application returned before its response was complete.")

    async def _send_piece(self, body: bytes | memoryview) -> None:
        is_first = self.phase is ResponsePhase.STARTED
        self._move(ResponseEvent.PIECE)
        await self._write(b"" if self._is_head_request else body, is_first=is_first)

    async def _send_last(self, body: bytes | memoryview) -> None:
        is_first = self.phase is ResponsePhase.STARTED
        self._move(ResponseEvent.LAST)
        if self._is_head_request:
            body = b""
        if is_first and len(body) <= PIECE_MAX_BYTES:
            self._channel.finish(self._encoded(body))
            return
        if body:
            await self._write(body, is_first=is_first)
        self._channel.finish(None)

    async def _write(self, body: bytes | memoryview, *, is_first: bool) -> None:
        """The body in pieces, the first one with the head. An empty piece leaves only with the head."""
        view = memoryview(body)
        if is_first:
            await self._channel.write(self._encoded(view[:PIECE_MAX_BYTES]))
            view = view[PIECE_MAX_BYTES:]
        elif len(view) <= PIECE_MAX_BYTES:
            if view:
                await self._channel.write(bytes(body))
            return
        while view:
            await self._channel.write(bytes(view[:PIECE_MAX_BYTES]))
            view = view[PIECE_MAX_BYTES:]

    def _encoded(self, body: bytes | memoryview) -> bytes:
        status, headers = self._head
        return encode_response(status, headers, bytes(body), route_pattern(self._scope))

    def _move(self, event: ResponseEvent) -> None:
        try:
            self.phase = next_state(TRANSITIONS, self.phase, event)
        except WrongTransitionError as error:
            raise RuntimeError(f"The ASGI application sent its response out of order: {error}.") from None
