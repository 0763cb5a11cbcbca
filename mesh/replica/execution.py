"""Owns one run of user code for one call: arguments in, responses out, and every way it can end.

An execution lives on the user loop or in a thread of the pool, never on the I/O loop (unless the user asked for that).
It ends in exactly one Outcome, whatever the user's code raises. What it sends goes through `post`, which hands over to
the I/O loop in order and in batches.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason, MeshException, RequestCancelledError
from mesh.link.callee_link import IncomingCall
from mesh.replica.flow_control import CreditWindow, RequestStream
from mesh.replica.grpc_context import GrpcContext
from mesh.replica.user_methods import CONTEXT_KEYWORD, Method
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.payload import Payload, decode, encode, raw

Post = Callable[..., None]


class Execution:
    """One call in user code."""

    __slots__ = ("call", "grpc_context", "has_begun", "method", "post", "request", "requests", "task", "window")

    def __init__(self, call: IncomingCall, method: Method, post: Post, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.method = method
        self.post = post
        self.request = Request(call.request.context, call.request.deadline_at_s)
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        self.window = CreditWindow(call.credit) if call.request.streams_response else None
        self.requests: RequestStream | None = None
        if call.request.streams_request:
            self.requests = RequestStream(loop, self._grant, self._request_message)
        self.grpc_context: GrpcContext | None = None
        if method.context_position >= 0 or method.has_context_keyword:
            self._make_context()

    def cancel(self, reason: CancelReason) -> None:
        """Stop the user's code at its next `await` or `yield`. On the user loop."""
        self.request.cancel(reason)
        error = RequestCancelledError(reason=reason)
        if self.window is not None:
            self.window.stop(reason)
        if self.requests is not None:
            self.requests.fail(error)
        # A task that is cancelled before its first step ends without running a line of `run`, so without an outcome.
        if self.task is not None and self.has_begun:
            self.task.cancel(error.message)

    # ---- On the user loop --------------------------------------------------------------------------------------------

    async def run(self, conclude: Callable[[Execution, Outcome], None]) -> None:
        """Run an `async def` method or async generator."""
        self.has_begun = True
        REQUEST.set(self.request)
        try:
            if self.request.is_cancelled:
                raise asyncio.CancelledError
            args, kwargs = self._arguments()
            result = self.method.function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            outcome = await self._respond(result)
        except BaseException as error:
            outcome = self._failed(error)
        self._conclude(conclude, outcome)

    async def _respond(self, result: Any) -> Outcome:
        if self.call.request.streams_response:
            if isinstance(result, AsyncIterator):
                await self._pump(result)
            elif inspect.isgenerator(result):
                raise TypeError(f"Method '{self.method.name}' returned a sync generator from async code.")
            elif not self._wrote_messages(result):
                raise TypeError(_not_a_generator(self.method.name))
            return Outcome()
        return self._unary_outcome(result)

    async def _pump(self, generator: AsyncIterator[Any]) -> None:
        window = self.window
        assert window is not None
        send = self.call.send_item
        try:
            async for item in generator:
                await window.acquire()
                self.post(send, self._charged(item))
        finally:
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    async def _write(self, message: Any) -> None:
        assert self.window is not None
        await self.window.acquire()
        self.post(self.call.send_item, self._charged(message))

    # ---- In a thread -------------------------------------------------------------------------------------------------

    def run_in_thread(self, conclude: Callable[[Execution, Outcome], None], run_async: Callable[[Any], None]) -> None:
        """Run a `def` method or generator; `run_async` takes over where it returned something to await."""
        token = REQUEST.set(self.request)
        try:
            args, kwargs = self._arguments()
            result = self.method.function(*args, **kwargs)
            if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
                run_async(self._finish_async(result, conclude))
                return
            outcome = self._respond_in_thread(result)
        except BaseException as error:
            outcome = self._failed(error)
        finally:
            REQUEST.reset(token)
        self._conclude(conclude, outcome)

    async def _finish_async(self, result: Any, conclude: Callable[[Execution, Outcome], None]) -> None:
        self.task = asyncio.current_task()
        self.has_begun = True
        REQUEST.set(self.request)
        if self.request.is_cancelled and self.task is not None:
            self.task.cancel()
        try:
            # The response of another streaming call is both: a generator with an `__await__` that explains itself.
            is_awaited = inspect.isawaitable(result) and not isinstance(result, AsyncIterator)
            outcome = await self._respond(await result if is_awaited else result)
        except BaseException as error:
            outcome = self._failed(error)
        self._conclude(conclude, outcome)

    def _respond_in_thread(self, result: Any) -> Outcome:
        if not self.call.request.streams_response:
            return self._unary_outcome(result)
        if not isinstance(result, Iterator):
            raise TypeError(_not_a_generator(self.method.name))
        window = self.window
        assert window is not None
        try:
            for item in result:
                window.acquire_blocking()
                self.post(self.call.send_item, self._charged(item))
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return Outcome()

    # ---- Values ------------------------------------------------------------------------------------------------------

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call, method = self.call, self.method
        kwargs: dict[str, Any] = {}
        if method.typed is None:
            args, kwargs = decode(call.request.payload) if call.request.payload is not None else ((), {})
        elif self.requests is not None:
            args = (self.requests,)
        else:
            args = (self._request_message(call.request.payload or raw(b"")),)
        call.request.payload = None
        if method.has_context_keyword:
            kwargs.setdefault(CONTEXT_KEYWORD, self.grpc_context)
        elif method.context_position == len(args):
            args = (*args, self.grpc_context)
        return args, kwargs

    def _request_message(self, payload: Payload) -> Any:
        typed = self.method.typed
        if typed is None:
            return decode(payload)
        data = bytes(payload.data)
        return typed.request_deserializer(data) if typed.request_deserializer is not None else data

    def _charged(self, value: Any) -> Payload:
        """A response item; what it takes of the credit beyond the one acquired for it is taken now."""
        payload = self._item(value)
        credits = payload.credits
        if credits > 1 and self.window is not None:
            self.window.charge(credits - 1)
        return payload

    def _item(self, value: Any) -> Payload:
        if self.method.typed is None:
            return encode(value, "item", store=False)
        return self._message(value)

    def _message(self, value: Any) -> Payload:
        typed = self.method.typed
        assert typed is not None
        try:
            data = typed.response_serializer(value) if typed.response_serializer is not None else value
            if not isinstance(data, bytes):
                raise TypeError("the message is not serialised")
        except Exception as error:  # the serialiser of a type that the value is not of
            raise TypeError(
                f"'{typed.full_name}' answered with a {type(value).__name__}, not with its response message: {error}"
            ) from error
        return raw(data)

    def _unary_outcome(self, result: Any) -> Outcome:
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(
                f"Method '{self.method.name}' returned a generator. You must use `handle.options(stream=True)` to call "
                "it."
            )
        if self.method.typed is None:
            return Outcome(payload=encode(result, "result"))
        if result is None and self.grpc_context is not None and self.grpc_context.code() is not None:
            return Outcome()
        return Outcome(payload=self._message(result))

    # ---- Ends --------------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> Outcome:
        if isinstance(error, asyncio.CancelledError) and not isinstance(error, MeshException):
            return failed(RequestCancelledError(reason=self.request.cancel_reason or CancelReason.UNSPECIFIED))
        return failed_in_user_code(error)

    def _conclude(self, conclude: Callable[[Execution, Outcome], None], outcome: Outcome) -> None:
        """Whatever happens here, the call ends."""
        context = self.grpc_context
        if context is not None:
            try:
                context.done()
                outcome = context.apply(outcome)
            except BaseException as error:  # done callbacks, codes and trailers are the user's
                outcome = self._failed(error)
        self.post(conclude, self, outcome)
        if self.requests is not None:
            self.requests.end()

    def _wrote_messages(self, result: Any) -> bool:
        """A typed coroutine may answer through `context.write` and return nothing."""
        return result is None and self.method.typed is not None

    def _make_context(self) -> None:
        call = self.call
        context = self.grpc_context = GrpcContext(self.request, call.request.metadata, call.request.peer)
        if self.requests is not None:
            context.read_message = self.requests.read
        if self.window is not None:
            context.write_message = self._write

    def _grant(self, items: int) -> None:
        self.post(self.call.grant, items)


def _not_a_generator(name: str) -> str:
    return (
        f"Method '{name}' was called with `stream=True`, but it did not return a generator. Use `yield`, or call it "
        "without `stream=True`."
    )
