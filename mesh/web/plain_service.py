"""Web calls of a deployment without ASGI: `__call__(request)` or a function, and the responses made of its results."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import CoroutineType, GeneratorType
from typing import Any

from mesh.usercode.thread_call import thread_call
from mesh.web.asgi_types import Scope, WebChannel
from mesh.web.http_call import HttpCall
from mesh.web.json_text import json_text
from mesh.wire.web_messages import Headers, encode_close

_TEXT = b"text/plain; charset=utf-8"
_BYTES = b"application/octet-stream"
_JSON = b"application/json"
_JSON_LINES = b"application/x-ndjson"
_POLICY_VIOLATION = 1008
_END: Any = object()
_VALUES = frozenset({str, bytes, dict, list, tuple, int, float, bool, type(None)})
"""Types of nearly all results. What is of any other may be something to await or to iterate, which is slow to tell."""

Threads = Callable[[], ThreadPoolExecutor]


class PlainService:
    """Calls a function of the user's with a `starlette.requests.Request` and sends what it returns (item 114).

    str and bytes are bodies, a Starlette Response is the response, everything else becomes JSON. A generator is a
    streamed body: of its str and bytes as they are, of its other values as lines of JSON.
    """

    def __init__(self, function: Callable[..., Any], threads: Threads, *, is_async: bool) -> None:
        """`threads`: where a `def` function and generators run."""
        # Not at the top: only replicas that take web requests pay for Starlette.
        from starlette.requests import Request
        from starlette.responses import Response

        self._make_request = Request
        self._response_type = Response
        self._function = function
        self._threads = threads
        self._is_async = is_async
        self._takes_request = _takes_argument(function)

    async def serve(self, body: bytes, channel: WebChannel, scope: Scope) -> None:
        """Answer one request. Raises what the function raises."""
        if scope["type"] == "websocket":
            await channel.write(encode_close(_POLICY_VIOLATION, "This deployment takes no WebSockets."))
            channel.finish(None)
            return
        call = HttpCall(body, channel, scope)
        arguments = (self._make_request(scope, call.receive),) if self._takes_request else ()
        if self._is_async:
            result = self._function(*arguments)
        else:
            result = await _returned(
                self._threads().submit(copy_context().run, thread_call, self._function, *arguments)
            )
        if isinstance(result, CoroutineType) or (inspect.isawaitable(result) and not isinstance(result, AsyncIterator)):
            result = await result
        await self._respond(call, scope, result)
        call.check_complete()

    async def stop(self) -> None:
        """Nothing was started."""

    async def _respond(self, call: HttpCall, scope: Scope, result: Any) -> None:
        if type(result) in _VALUES:
            await _send_value(call, result)
        elif isinstance(result, self._response_type):
            if type(result).__call__ is self._response_type.__call__ and result.background is None:
                await call.respond(result.status_code, result.raw_headers, result.body)
            else:
                await result(scope, call.receive, call.send)
        elif isinstance(result, AsyncIterator):
            await _stream(call, result)
        elif inspect.isgenerator(result):
            await _stream(call, _in_threads(result, self._threads))
        else:
            await _send_value(call, result)


def _send_value(call: HttpCall, value: object) -> Awaitable[None]:
    body, media_type = _body_of(value)
    return call.respond(200, _headers(media_type, len(body)), body)


async def _stream(call: HttpCall, items: AsyncIterator[Any]) -> None:
    """Each item is flushed on its own; the first one decides the media type."""
    try:
        first = await anext(items, _END)
        if first is _END:
            await call.respond(200, _headers(_TEXT, 0), b"")
            return
        is_json = not isinstance(first, str | bytes)
        media_type = _JSON_LINES if is_json else _body_of(first)[1]
        await call.send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
        await call.send({"type": "http.response.body", "body": _piece(first), "more_body": True})
        async for item in items:
            await call.send({"type": "http.response.body", "body": _piece(item), "more_body": True})
        await call.send({"type": "http.response.body"})
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _in_threads(generator: GeneratorType[Any, Any, Any], threads: Threads) -> AsyncIterator[Any]:
    """The items of a `def` generator, each of which is made in a thread, always in the same context."""
    context = copy_context()
    step: Future[Any] | None = None
    try:
        while True:
            # Asked for each time: a new limit of the replica brings new threads.
            step = threads().submit(context.run, _next, generator)
            item = await _returned(step)
            if item is _END:
                return
            yield item
    finally:
        # A step cannot be interrupted: the generator ends behind it, and in a thread, because that may block too.
        if step is not None and inspect.getgeneratorstate(generator) != inspect.GEN_CLOSED:
            step.add_done_callback(lambda _: threads().submit(context.run, generator.close))


async def _returned(running: Future[Any]) -> Any:
    """What a thread returns. A cancel takes effect when it has returned: it cannot be interrupted, and has the place.

    So it is with `def` methods of handles. Another call in that place would wait for a thread, here and not in a queue.
    """
    waiting = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not running.cancel():
            await asyncio.wait([waiting])
        raise


def _next(generator: Generator[Any, Any, Any]) -> Any:
    return next(generator, _END)


def _piece(item: object) -> bytes:
    body, media_type = _body_of(item)
    return body + b"\n" if media_type is _JSON else body


def _body_of(value: object) -> tuple[bytes, bytes]:
    """The body and its media type."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), _BYTES
    if isinstance(value, str):
        return value.encode(), _TEXT
    return json_text(value), _JSON


def _headers(media_type: bytes, length: int) -> Headers:
    return [(b"content-length", b"%d" % length), (b"content-type", media_type)]


def _takes_argument(function: Callable[..., Any]) -> bool:
    """Whether it can be called with a request: a function without parameters is called without one (item 27)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return True
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return any(parameter.kind in kinds for parameter in parameters)
