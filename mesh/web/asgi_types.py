"""The types of ASGI 3, and what a web call asks of the replica that runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGoneError(OSError):
    """The client has left: nothing can be sent to it any more. ASGI wants an OSError."""


class WebChannel(Protocol):
    """The way between one web call and its gateway. On the user loop. Implemented by replica.web_execution."""

    @property
    def is_streamed(self) -> bool:
        """The body of the request comes in items."""

    async def read(self) -> bytes | None:
        """The next item of a streamed request; None at its end. Raises ClientGoneError."""

    async def write(self, data: bytes) -> None:
        """Send one item of the response, when the gateway has room for it. Raises ClientGoneError."""

    def finish(self, data: bytes | None) -> None:
        """The response is complete; `data` is all of it if it was not begun with `write`."""

    async def ended(self) -> None:
        """Wait until the response is complete, or the client has left."""


class WebService(Protocol):
    """What answers the web calls of a replica. On the user loop."""

    async def serve(self, body: bytes, channel: WebChannel, scope: Scope) -> None:
        """Answer one request or WebSocket. `scope` is its scope of ASGI; `body` is empty where that is streamed."""

    async def stop(self) -> None:
        """The replica ends. Raises what user code raises."""
