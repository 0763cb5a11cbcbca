"""Owns the way of an admitted call from the link into user code and back. The CallService of a replica; I/O loop."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from mesh.cluster.ray_objects import load_buffers
from mesh.exceptions import CancelReason, DeadlineExceededError, MeshException, RequestCancelledError
from mesh.link.callee_link import IncomingCall
from mesh.replica.execution import Execution
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import Kind, Method, MethodTable
from mesh.settings import settings
from mesh.wire.bulk_fetch import run_bulk
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.payload import PICKLE_BUFFERS, Payload


class Executor:
    """Runs calls on the user loop or in its threads."""

    def __init__(self, methods: MethodTable, user_loop: UserLoop, counts: ReplicaCounts) -> None:
        self._methods = methods
        self._user = user_loop
        self._counts = counts
        io = io_thread()
        self._to_io = io.post if user_loop.is_isolated else io.call
        self._futures: dict[IncomingCall, Future[None]] = {}
        """Calls in the thread pool, so that one which has not begun can be cancelled."""

    # ---- CallService -------------------------------------------------------------------------------------------------

    def start(self, call: IncomingCall) -> None:
        if call.request.deadline_at_s is not None and call.request.deadline_at_s <= time.monotonic():
            self._end(call, failed(DeadlineExceededError()))
            return
        payload = call.request.payload
        if payload is not None and payload.stored is not None:
            io_thread().spawn(self._fetch_and_run(call, payload), "fetch-stored-arguments")
        else:
            self._run(call)

    def on_item(self, call: IncomingCall, payload: Payload) -> None:
        if isinstance(call.execution, Execution) and call.execution.requests is not None:
            self._user.post(call.execution.requests.on_item, payload)

    def on_half_close(self, call: IncomingCall) -> None:
        if isinstance(call.execution, Execution) and call.execution.requests is not None:
            self._user.post(call.execution.requests.on_half_close)

    def on_credit(self, call: IncomingCall, credits: int) -> None:
        if isinstance(call.execution, Execution) and call.execution.window is not None:
            call.execution.window.add(credits)
            self._user.post(call.execution.window.wake)

    def cancel(self, call: IncomingCall) -> None:
        self._counts.cancelled += 1
        future = self._futures.get(call)
        if future is not None and future.cancel():
            self._end(call, _cancelled(call))
        elif isinstance(call.execution, Execution):
            self._user.post(call.execution.cancel, call.cancel_reason)

    # ---- Running -----------------------------------------------------------------------------------------------------

    async def _fetch_and_run(self, call: IncomingCall, payload: Payload) -> None:
        assert payload.stored is not None
        try:
            buffers = await run_bulk(load_buffers, payload.stored)
        except Exception as error:  # the caller or its node is gone, in whichever way Ray says so
            self._end(call, failed(MeshException(f"An argument was lost on its way: {error}")))
            return
        call.request.payload = Payload(PICKLE_BUFFERS, payload.data, buffers)
        if call.cancel_reason is not None:
            self._end(call, _cancelled(call))
        else:
            self._run(call)

    def _run(self, call: IncomingCall) -> None:
        """Whatever goes wrong here, the call ends: it holds a place."""
        try:
            self._hand_over(call, self._methods.find(call.request.method))
        except MeshException as error:
            self._end(call, failed(error))
        except Exception as error:  # a property of the user's class, or a thread pool that is closed
            self._end(call, failed_in_user_code(error))

    def _hand_over(self, call: IncomingCall, method: Method) -> None:
        execution = Execution(call, method, self._to_io, self._user.loop)
        call.execution = execution
        if call.request.streams_request:
            call.grant(settings().payload.stream_credits)
        if method.kind is Kind.ASYNC:
            self._user.post(self._begin, execution)
        else:
            self._futures[call] = self._user.threads.submit(
                execution.run_in_thread, self._conclude, self._run_on_user_loop
            )

    def _begin(self, execution: Execution) -> None:
        """On the user loop."""
        execution.task = self._user.loop.create_task(execution.run(self._conclude))

    def _run_on_user_loop(self, coroutine: Any) -> None:
        """From a pool thread: its method returned something to await."""
        self._user.submit(coroutine)

    def _conclude(self, execution: Execution, outcome: Outcome) -> None:
        self._end(execution.call, outcome)

    def _end(self, call: IncomingCall, outcome: Outcome) -> None:
        self._futures.pop(call, None)
        call.execution = None
        self._counts.methods[call.request.method].count(outcome.code, time.monotonic() - call.started_s)
        call.finish(outcome)


def _cancelled(call: IncomingCall) -> Outcome:
    return failed(RequestCancelledError(reason=call.cancel_reason or CancelReason.UNSPECIFIED))
