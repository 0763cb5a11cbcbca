"""One web call in user code: the run of an ASGI application or a plain `__call__` for one HTTP request or WebSocket.

Theory of operation. All of it runs in one task of the user loop, apart from plain `def` functions, which have a thread.
Its items are bytes: of a streamed request first a WebRequest, of the response see web.proto. The call ends with the
response: user code that goes on behind it (background tasks) keeps the call's place, but can no longer be cancelled.

A cancel ends an HTTP request as it ends any task. Code of a WebSocket first gets `websocket.disconnect`, as ASGI has
it, and is cancelled when it does not end by itself within a grace time; at once if its client had closed before, since
the gateway has then waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

import grpc.aio

from mesh.context import REQUEST
from mesh.exceptions import CancelReason, RequestCancelledError
from mesh.link.callee_link import IncomingCall
from mesh.phases.transitions import next_state
from mesh.phases.waiting import Waiters
from mesh.replica.execution import TRANSITIONS, Conclude, ExecutionEvent, ExecutionPhase, failure_outcome
from mesh.replica.failure_log import failure_log
from mesh.replica.flow_control import CreditWindow, RequestStream
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.settings import settings
from mesh.web.asgi_scope import ServedWebRequest, read_web_request
from mesh.web.asgi_types import ClientGoneError, WebService
from mesh.wire.outcome import Outcome, cancelled
from mesh.wire.payload import RAW, Payload

_GONE = "The client has left."


class WebExecution:
    """The link's RunningCall, and the WebChannel of the call."""

    __slots__ = (
        "_conclude",
        "_counts",
        "_ends",
        "_outcome",
        "_requests",
        "_service",
        "_task",
        "_user",
        "_window",
        "call",
        "phase",
        "request",
    )

    def __init__(
        self, call: IncomingCall, service: WebService, user_loop: UserLoop, counts: ReplicaCounts, conclude: Conclude
    ) -> None:
        """`conclude` ends the call, on the I/O loop."""
        self.call = call
        self.request = ServedWebRequest(call.request.context, call.request.deadline_at_s)
        self.phase = ExecutionPhase.WAITING
        self._service = service
        self._user = user_loop
        self._counts = counts
        self._conclude = conclude
        self._task: asyncio.Task[None] | None = None
        self._window: CreditWindow | None = None
        """Made with the first item of the response: most responses have none."""
        self._requests: RequestStream | None = None
        if call.request.streams_request:
            self._requests = RequestStream(user_loop.loop, self._grant, _bytes_of)
        self._ends: Waiters | None = None
        """User code that waits for the end of the response."""
        self._outcome: Outcome | None = None
        """Once the response is complete."""

    def __repr__(self) -> str:
        return f"<WebExecution of call {self.call.call_id}, {self.phase.name}>"

    # ---- On the I/O loop (RunningCall) -------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Let the user loop begin."""
        self._user.post(self._begin)

    def on_item(self, payload: Payload) -> None:
        if self._requests is not None:
            self._user.post(self._requests.on_item, payload)

    def on_half_close(self) -> None:
        if self._requests is not None:
            self._user.post(self._requests.on_half_close)

    def on_credit(self, credits: int) -> None:
        self._user.post(self._on_credit, credits)

    def cancel(self, reason: CancelReason) -> None:
        self._counts.cancelled += 1
        self._user.post(self._cancel, reason)

    # ---- On the user loop: the run ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._task = self._user.loop.create_task(self._run())

    async def _run(self) -> None:
        self._move(ExecutionEvent.BEGIN)
        REQUEST.set(self.request)
        try:
            if self.request.is_cancelled:
                raise asyncio.CancelledError
            scope, body = read_web_request(await self.read() or b"" if self._requests is not None else self._first())
            self.request.scope = scope
            await self._watched(self._service.serve(body, self, scope))
            if self._outcome is None:
                raise RuntimeError("The application returned without a response: it ignored an error of `send`.")
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    @coroutine
    def _watched(self, code: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await user code. Where it waits behind its response, its call ends: its client must not wait as well."""
        step: Callable[[Any], Any] = code.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration:
                return
            finally:
                # An error that is kept in a frame of its own traceback would stay until the collector comes.
                value = None
            self._conclude_early()
            try:
                value, step = (yield awaited), code.send
            except GeneratorExit:
                code.close()
                raise
            except BaseException as error:
                value, step = error, code.throw

    def _first(self) -> bytes:
        """The serialised WebRequest, if the request is not streamed."""
        payload, self.call.request.payload = self.call.request.payload, None
        return _bytes_of(payload) if payload is not None else b""

    def _end(self, error: BaseException | None) -> None:
        """User code has ended, with or without a response."""
        if self._requests is not None:
            self._requests.end()
        if error is not None and self._outcome is not None:
            # The client has its response. Starlette raises behind the 500 that it sends.
            if not self.request.is_cancelled:
                failure_log.record(self.request.title, self.request.request_id, error)
        elif error is not None and self.request.cancel_reason is not None:
            # Whatever it made of the cancel: frameworks have errors of their own for it, and groups of them.
            self._outcome = cancelled(self.request.cancel_reason)
        elif error is not None:
            self._outcome = failure_outcome(error, self.request, self.request.title)
        if self.phase is ExecutionPhase.CONCLUDED:
            self._user.to_io(self.call.link.leave_place)
            return
        self._move(ExecutionEvent.CONCLUDE)
        assert self._outcome is not None
        self._user.to_io(self._conclude, self.call, self._outcome)

    def _conclude_early(self) -> None:
        """The response is complete, and user code goes on."""
        if self.phase is ExecutionPhase.RUNNING and self._outcome is not None:
            self._move(ExecutionEvent.CONCLUDE)
            self.call.keeps_place = True
            self._user.to_io(self._conclude, self.call, self._outcome)

    def _cancel(self, reason: CancelReason) -> None:
        """The client has left: tell user code, and stop it at its next `await`."""
        if self.phase is ExecutionPhase.CONCLUDED:
            return
        self.request.cancel(reason)
        error = RequestCancelledError(reason=reason)
        if self._window is not None:
            self._window.stop(reason)
            self._window.wake()
        if self._requests is not None:
            self._requests.fail(ClientGoneError(_GONE))
        if self._ends is not None:
            self._ends.wake()
        # A task that is cancelled before its first step ends without running a line of `_run`, so without an outcome.
        if self._task is None or self.phase is ExecutionPhase.WAITING:
            return
        if self.request.is_websocket and not (self._requests is not None and self._requests.is_closed):
            self._user.loop.call_later(settings().replica.websocket_grace_s, self._task.cancel, error.message)
        else:
            self._task.cancel(error.message)

    # ---- On the user loop (WebChannel) -------------------------------------------------------------------------------

    @property
    def is_streamed(self) -> bool:
        return self._requests is not None

    async def read(self) -> bytes | None:
        assert self._requests is not None
        item = await self._requests.read()
        return None if item is grpc.aio.EOF else item

    async def write(self, data: bytes) -> None:
        if self.request.is_cancelled:
            raise ClientGoneError(_GONE)
        window = self._window
        if window is None:
            window = self._window = CreditWindow(self.call.credit)
        try:
            await window.acquire()
        except RequestCancelledError:
            raise ClientGoneError(_GONE) from None
        payload = Payload(RAW, data)
        if payload.credits > 1:
            window.charge(payload.credits - 1)
        self._user.to_io(self.call.send_item, payload)

    def finish(self, data: bytes | None) -> None:
        self._outcome = Outcome(payload=Payload(RAW, data) if data is not None else None)
        # User code nearly always returns now, and its call then ends with it. Else its task notices that it does not.
        if asyncio.current_task() is not self._task:
            self._user.loop.call_soon(self._conclude_early)
        if self._ends is not None:
            self._ends.wake()

    async def ended(self) -> None:
        if self._ends is None:
            self._ends = Waiters()
        await self._ends.until(lambda: self._outcome is not None or self.request.is_cancelled)

    def _on_credit(self, credits: int) -> None:
        if self._window is not None:
            self._window.add(credits)
            self._window.wake()

    def _grant(self, credits: int) -> None:
        self._user.to_io(self.call.grant, credits)

    def _move(self, event: ExecutionEvent) -> None:
        self.phase = next_state(TRANSITIONS, self.phase, event)


def _bytes_of(payload: Payload) -> bytes:
    return payload.data if isinstance(payload.data, bytes) else bytes(payload.data)
