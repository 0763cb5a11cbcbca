"""`handle.broadcast()`: one call to every running replica of a deployment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mesh.caller.call_future import lock_timeout_s
from mesh.caller.response import DeploymentResponse, refuse_in_loop
from mesh.context import Request
from mesh.exceptions import CancelReason, DeadlineExceededError, RequestCancelledError
from mesh.link.outgoing_call import DEADLINE_TIMER_MAX_S
from mesh.options import option_checks
from mesh.routing.router import Router
from mesh.wire.io_thread import io_thread

CallReplica = Callable[[str], DeploymentResponse[Any]]
"""Calls the replica of this id. On the I/O thread."""


class BroadcastResponse:
    """The responses of all replicas that ran when the broadcast began, in no certain order."""

    def __init__(
        self, router: Router, call: CallReplica, parent: Request | None = None, deadline_at_s: float | None = None
    ) -> None:
        """`parent`: the request that makes it. `deadline_at_s`: that of its calls, a time.monotonic() instant."""
        self._router = router
        self._call = call
        self._parent = parent
        self._as_child = _UnbegunBroadcast(self._end)
        self._timer: asyncio.TimerHandle | None = None
        self._responses: Future[list[DeploymentResponse[Any]]] = Future()
        if parent is not None:
            parent.children.add(self._as_child)
        io_thread().call(self._await_listing, deadline_at_s)
        if parent is not None and parent.is_cancelled:
            self._as_child.cancel(CancelReason.PARENT)

    def __repr__(self) -> str:
        phase = "begun" if self._responses.done() else "waiting for replicas"
        return f"<{type(self).__name__} of {self._router.key}, {phase}: ask for its results()>"

    def results(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """The value of each replica; blocks up to `timeout_s` seconds.

        Raises the exception of a replica, unless `return_exceptions` puts exceptions in the places of values;
        TimeoutError (the calls go on), and RuntimeError in a thread that runs an event loop. While the replicas are
        not known yet, DeadlineExceededError at the deadline and RequestCancelledError with the request that made it.
        """
        refuse_in_loop()
        io_thread().refuse_wait()
        option_checks.seconds("timeout_s", timeout_s)
        end_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        responses = self._responses.result(lock_timeout_s(timeout_s))
        values: list[Any] = []
        for response in responses:
            remaining_s = None if end_at_s is None else max(0.0, end_at_s - time.monotonic())
            response._future.wait_blocking(remaining_s)
            values.append(_value(response, return_exceptions=return_exceptions))
        return values

    async def results_async(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Like `results`, in an event loop."""
        option_checks.seconds("timeout_s", timeout_s)
        async with asyncio.timeout(timeout_s):
            responses = await asyncio.shield(asyncio.wrap_future(self._responses))
            for response in responses:
                await response._future.wait(is_shielded=True)
        return [_value(response, return_exceptions=return_exceptions) for response in responses]

    def cancel(self) -> None:
        """Cancel all the calls that have not ended. Best effort, from any thread."""
        io_thread().call(self._cancel)

    # ---- On the I/O thread -------------------------------------------------------------------------------------------

    def _await_listing(self, deadline_at_s: float | None) -> None:
        self._router.listing.when_known(self._begin)
        if self._responses.done() or deadline_at_s is None:
            return
        remaining_s = deadline_at_s - time.monotonic()
        if remaining_s <= 0:
            self._end(DeadlineExceededError())
        elif remaining_s < DEADLINE_TIMER_MAX_S:
            self._timer = asyncio.get_running_loop().call_later(remaining_s, self._end, DeadlineExceededError())

    def _begin(self) -> None:
        refusal = self._router.listing.why_refused
        if refusal is not None:
            self._end(refusal)
            return
        try:
            responses = [self._call(replica.replica_id) for replica in self._router.listing.replicas]
        except Exception as error:  # nothing may leave a callback of the router
            self._end(error)
        else:
            self._stop_waiting()
            self._responses.set_result(responses)

    def _end(self, error: Exception) -> None:
        """End it before its calls have begun."""
        if not self._responses.done():
            self._stop_waiting()
            self._responses.set_exception(error)

    def _stop_waiting(self) -> None:
        self._router.listing.forget(self._begin)
        if self._timer is not None:
            self._timer.cancel()
        if self._parent is not None:
            self._parent.children.discard(self._as_child)

    def _cancel(self) -> None:
        if not self._responses.done():
            self._end(RequestCancelledError(reason=CancelReason.CLIENT))
        elif self._responses.exception() is None:
            for response in self._responses.result():
                response.cancel()


class _UnbegunBroadcast:
    """A broadcast as a child of the request that makes it. When it has begun, its calls are that."""

    def __init__(self, end: Callable[[Exception], None]) -> None:
        self._end = end

    def cancel(self, reason: CancelReason) -> None:
        io_thread().call(self._end, RequestCancelledError(reason=reason))


def _value(response: DeploymentResponse[Any], *, return_exceptions: bool) -> Any:
    try:
        return response._get()
    except Exception as error:
        if return_exceptions:
            return error
        raise
