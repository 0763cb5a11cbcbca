"""One run of user code for one call: arguments in, responses out, and every way it can end.

Theory of operation. The I/O loop makes an execution and hands it over to the user loop, or to a thread of the pool.
There it runs and ends in exactly one Outcome, whatever the user's code raises. What it sends goes back through
`UserLoop.to_io`, which keeps the order and hands over in batches.

A cancel takes effect where the execution is: one that waits for its arguments ends immediately, one that waits for a
thread is taken out of the pool, one that waits for its first step ends there, an `async` one that runs is cancelled
like any task. A `def` one that runs ends at its next `yield`, or when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from enum import IntEnum
from time import monotonic
from typing import Any

import grpc

from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason, MeshException, RequestCancelledError
from mesh.link.callee_link import IncomingCall
from mesh.phases.transitions import next_state
from mesh.replica.failure_log import failure_log
from mesh.replica.flow_control import CreditWindow, RequestStream
from mesh.replica.grpc_context import GrpcContext
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import Kind, Method
from mesh.wire.outcome import Outcome, cancelled, failed_in_user_code
from mesh.wire.payload import Payload

Conclude = Callable[[IncomingCall, Outcome], None]


class ExecutionPhase(IntEnum):
    """The phases of an execution. Integers hash fast, and each call looks up two transitions."""

    WAITING = 0
    """It waits for its arguments, for a thread, or for its first step on the user loop."""
    RUNNING = 1
    CONCLUDED = 2
    """Its outcome has been sent to the I/O loop."""


class ExecutionEvent(IntEnum):
    BEGIN = 0
    CONCLUDE = 1


WAITING, RUNNING, CONCLUDED = ExecutionPhase
BEGIN, CONCLUDE = ExecutionEvent
_ASYNC = Kind.ASYNC

TRANSITIONS = {
    (WAITING, BEGIN): RUNNING,
    (RUNNING, CONCLUDE): CONCLUDED,
}


class Execution:
    """One call in user code; the link's RunningCall."""

    __slots__ = (
        "_conclude",
        "_counts",
        "_user",
        "call",
        "grpc_context",
        "method",
        "phase",
        "request",
        "requests",
        "task",
        "waiting",
        "window",
    )

    def __init__(
        self, call: IncomingCall, method: Method, user_loop: UserLoop, counts: ReplicaCounts, conclude: Conclude
    ) -> None:
        """`conclude` ends the call, on the I/O loop."""
        self.call = call
        self.method = method
        self._user = user_loop
        self._counts = counts
        self._conclude = conclude
        self.request = Request(call.request.context, call.request.deadline_at_s)
        self.phase = WAITING
        self.waiting: asyncio.Task[None] | Future[None] | None = None
        """The fetch of its arguments from the object store, then its place in the thread pool."""
        self.task: asyncio.Task[None] | None = None
        """What runs it on the user loop."""
        self.window = CreditWindow(call.credit) if call.request.streams_response else None
        self.requests: RequestStream | None = None
        if call.request.streams_request:
            self.requests = RequestStream(user_loop.loop, self._grant, method.codec.read_message)
        self.grpc_context: GrpcContext | None = None
        if method.context is not None:
            self._make_context()

    def __repr__(self) -> str:
        return f"<Execution of {self.method.name}, call {self.call.call_id}, {self.phase.name}>"

    # ---- On the I/O loop (RunningCall) -------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Let the user loop or a thread begin. Raises RuntimeError when the thread pool is closed."""
        if self.method.kind is _ASYNC:
            self.waiting = None
            self._user.post(self._begin)
        else:
            # In a context of its own: what one request sets in a context variable, the next one must not see.
            self.waiting = self._user.threads.submit(self._user.context.copy().run, self._run_in_thread)

    def on_item(self, payload: Payload) -> None:
        if self.requests is not None:
            self._user.post(self.requests.on_item, payload)

    def on_half_close(self) -> None:
        if self.requests is not None:
            self._user.post(self.requests.on_half_close)

    def on_credit(self, credits: int) -> None:
        if self.window is not None:
            self.window.add(credits)
            self._user.post(self.window.wake)

    def cancel(self, reason: CancelReason) -> None:
        self._counts.cancelled += 1
        if self.waiting is not None:
            if self.waiting.cancel():
                self._conclude(self.call, cancelled(reason))
                return
            # Immediately: async code of other calls may block the user loop.
            self._stop(reason)
        self._user.post(self._cancel, reason)

    def _stop(self, reason: CancelReason) -> None:
        """Stop what needs no turn of the user loop. From any thread."""
        self.request.cancel(reason)
        if self.window is not None:
            self.window.stop(reason)

    # ---- On the user loop --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.task = self._user.loop.create_task(self._run())

    async def _run(self) -> None:
        """Run an `async def` method or async generator."""
        self._move(BEGIN)
        began_at_s = monotonic()
        REQUEST.set(self.request)
        try:
            if self.request.is_cancelled:
                raise asyncio.CancelledError
            args, kwargs = self._arguments()
            result = self.method.function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if self.call.request.streams_response:
                outcome = await self._respond(result)
            else:
                outcome = self._unary_outcome(result)
        except BaseException as error:
            outcome = self._failed(error)
        self._finish(outcome, began_at_s)

    async def _respond(self, result: Any) -> Outcome:
        if not self.call.request.streams_response:
            return self._unary_outcome(result)
        if isinstance(result, AsyncIterator):
            await self._send_items(result)
        elif isinstance(result, Iterator):
            return await self._respond_from_thread(result)
        elif result is not None or not self.method.codec.may_return_nothing:
            raise TypeError(_not_a_generator(self.method.name))
        return Outcome()

    async def _respond_from_thread(self, result: Iterator[Any]) -> Outcome:
        """Run a sync generator that async code has returned, as that of a `def` method: its steps may block."""
        context = contextvars.copy_context()
        steps = self._user.loop.run_in_executor(self._user.threads, context.run, self._respond_in_thread, result)
        try:
            return await asyncio.shield(steps)
        except asyncio.CancelledError:
            await asyncio.wait([steps])  # to its next `yield`
            raise

    async def _send_items(self, generator: AsyncIterator[Any]) -> None:
        window = self.window
        assert window is not None
        try:
            async for item in generator:
                try:
                    if not window.take():
                        await window.acquire()
                except asyncio.CancelledError as error:
                    await _cancel_at_yield(generator, error)
                    raise
                self._user.to_io(self.call.send_item, self._encode_item(item))
        finally:
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    async def _send_item(self, item: Any) -> None:
        assert self.window is not None
        await self.window.acquire()
        self._user.to_io(self.call.send_item, self._encode_item(item))

    def _cancel(self, reason: CancelReason) -> None:
        """Stop the user's code at its next `await` or `yield`."""
        self._stop(reason)
        error = RequestCancelledError(reason=reason)
        if self.window is not None:
            self.window.wake()
        if self.requests is not None:
            self.requests.fail(error)
        # A task that is cancelled before its first step ends without running a line of `_run`, so without an outcome.
        if self.task is not None and self.phase is not WAITING:
            self.task.cancel(error.message)

    # ---- In a thread -------------------------------------------------------------------------------------------------

    def _run_in_thread(self) -> None:
        """Run a `def` method or generator. If it returns something to await, the user loop takes over."""
        self._move(BEGIN)
        began_at_s = monotonic()
        REQUEST.set(self.request)
        try:
            args, kwargs = self._arguments()
            result = self.method.function(*args, **kwargs)
            if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
                self._user.submit(self._take_over(result, began_at_s))
                return
            outcome = self._respond_in_thread(result)
        except BaseException as error:
            outcome = self._failed(error)
        self._finish(outcome, began_at_s)

    async def _take_over(self, result: Any, began_at_s: float) -> None:
        """On the user loop, with the context of the thread: the rest of a method that returned something to await."""
        task = asyncio.current_task()
        assert task is not None
        if self.request.is_cancelled:
            task.cancel()
        else:
            self.task = task
        try:
            # The response of another streaming call is both: a generator with an `__await__` that explains itself.
            is_awaited = inspect.isawaitable(result) and not isinstance(result, AsyncIterator)
            outcome = await self._respond(await result if is_awaited else result)
        except BaseException as error:
            outcome = self._failed(error)
        self._finish(outcome, began_at_s)

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
                self._user.to_io(self.call.send_item, self._encode_item(item))
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return Outcome()

    # ---- Values ------------------------------------------------------------------------------------------------------

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        request, method = self.call.request, self.method
        args, kwargs = method.codec.read_arguments(request.payload, self.requests)
        request.payload = None
        return (args, kwargs) if method.context is None else method.context.fill(args, kwargs, self.grpc_context)

    def _encode_item(self, value: Any) -> Payload:
        """A response item. One credit was acquired before; a large item takes the others that it costs here."""
        payload = self.method.codec.write_item(value)
        credits = payload.credits
        if credits > 1 and self.window is not None:
            self.window.charge(credits - 1)
        if self.grpc_context is not None:
            self.grpc_context.has_sent_headers = True
        return payload

    def _unary_outcome(self, result: Any) -> Outcome:
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(_is_a_generator(self.method.name))
        codec, context = self.method.codec, self.grpc_context
        if result is None and codec.may_return_nothing and context is not None and context.code() is not None:
            return Outcome()
        return Outcome(0, "", codec.write_result(result))

    # ---- Ends --------------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> Outcome:
        return failure_outcome(error, self.request, "" if self._has_chosen_status else self.method.name)

    @property
    def _has_chosen_status(self) -> bool:
        """Whether user code has set a status other than OK on its context."""
        code = self.grpc_context.code() if self.grpc_context is not None else None
        return isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK

    def _finish(self, outcome: Outcome, began_at_s: float) -> None:
        """Send the outcome. The call ends whatever the user's callbacks raise."""
        context = self.grpc_context
        if context is not None:
            try:
                context.end()
                outcome = context.apply(outcome)
                self.request.grpc_context = None  # the two refer to each other
            except BaseException as error:  # done callbacks, codes and trailers are the user's
                outcome = self._failed(error)
        self._move(CONCLUDE)
        call = self.call
        outcome.times = int((began_at_s - call.started_at_s) * 1e6), int((monotonic() - began_at_s) * 1e6)
        self._user.to_io(self._conclude, call, outcome)
        if self.requests is not None:
            self.requests.end()

    def _move(self, event: ExecutionEvent) -> None:
        self.phase = next_state(TRANSITIONS, self.phase, event)

    def _make_context(self) -> None:
        call = self.call
        context = self.grpc_context = GrpcContext(self.request, call.request.metadata, call.request.peer)
        context.response = call, self._user
        self.request.grpc_context = context
        if self.requests is not None:
            context.read_message = self.requests.read
        if self.window is not None:
            context.write_message = self._send_item

    def _grant(self, credits: int) -> None:
        self._user.to_io(self.call.grant, credits)


async def _cancel_at_yield(generator: AsyncIterator[Any], cancel: asyncio.CancelledError) -> None:
    """Raise CancelledError in a generator that stands at a `yield`, as it is raised at an `await`."""
    if inspect.isasyncgen(generator):
        with contextlib.suppress(StopAsyncIteration):
            await generator.athrow(asyncio.CancelledError(str(cancel)))


def failure_outcome(error: BaseException, request: Request, logged_as: str) -> Outcome:
    """The outcome of a call in which user code raised; `logged_as`: its method in the failure log, empty for none."""
    reason = request.cancel_reason
    if isinstance(error, asyncio.CancelledError) and (reason is not None or not isinstance(error, MeshException)):
        return cancelled(reason or CancelReason.UNSPECIFIED)
    if reason is None and logged_as:
        failure_log.record(logged_as, request.request_id, error)
    return failed_in_user_code(error)


def _is_a_generator(name: str) -> str:
    if _is_rpc(name):
        return f"'{name}' has one response, but returned a generator: return the message, or declare a stream of them."
    return (
        f"Method '{name}' returned a generator. You must use `handle.options(stream=True)` to call generators on a "
        "deployment."
    )


def _not_a_generator(name: str) -> str:
    if _is_rpc(name):
        return f"'{name}' streams its responses, but returned no generator: write each message with `yield`."
    return (
        f"Method '{name}' was called with `stream=True`, but it did not return a generator. Use `yield`, or call it "
        "without `stream=True`."
    )


def _is_rpc(name: str) -> bool:
    """A full name, "/package.Service/Method": whether it streams is said by its descriptor, not by an option."""
    return name.startswith("/")
