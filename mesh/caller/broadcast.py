"""`handle.broadcast()`: one call to every running replica of a deployment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mesh.caller.response import DeploymentResponse, refuse_in_loop
from mesh.exceptions import MeshException
from mesh.routing.router import Router
from mesh.wire.io_thread import io_thread

CallReplica = Callable[[str], DeploymentResponse[Any]]
"""Calls the replica of this id. On the I/O thread."""


class BroadcastResponse:
    """The responses of all replicas that ran when the broadcast began, in no certain order."""

    def __init__(self, router: Router, call: CallReplica) -> None:
        self._router = router
        self._call = call
        self._responses: Future[list[DeploymentResponse[Any]]] = Future()
        self._is_cancelled = False
        io_thread().call(router.listing.when_known, self._begin)

    def results(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """The value of each replica; blocks up to `timeout_s` seconds.

        Raises the exception of a replica, unless `return_exceptions` puts exceptions in the places of values;
        TimeoutError (the calls go on), and RuntimeError in a thread that runs an event loop.
        """
        refuse_in_loop()
        io_thread().refuse_wait()
        end_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        responses = self._responses.result(timeout_s)
        values: list[Any] = []
        for response in responses:
            remaining_s = None if end_at_s is None else max(0.0, end_at_s - time.monotonic())
            response._future.wait_blocking(remaining_s)
            values.append(_value(response, return_exceptions=return_exceptions))
        return values

    async def results_async(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Like `results`, in an event loop."""
        async with asyncio.timeout(timeout_s):
            responses = await asyncio.shield(asyncio.wrap_future(self._responses))
            for response in responses:
                await response._future.wait_shielded()
        return [_value(response, return_exceptions=return_exceptions) for response in responses]

    def cancel(self) -> None:
        """Cancel all the calls that have not ended. Best effort, from any thread."""
        io_thread().call(self._cancel)

    def _begin(self) -> None:
        if self._is_cancelled:
            return
        refusal = self._router.listing.why_refused
        if refusal is not None:
            self._responses.set_exception(refusal)
            return
        try:
            self._responses.set_result([self._call(replica.replica_id) for replica in self._router.listing.replicas])
        except Exception as error:  # nothing may leave a callback of the router
            self._responses.set_exception(error)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._responses.done():
            if self._responses.exception() is None:
                for response in self._responses.result():
                    response.cancel()
        else:
            self._responses.set_exception(MeshException("The broadcast was cancelled before it began."))


def _value(response: DeploymentResponse[Any], *, return_exceptions: bool) -> Any:
    try:
        return response._get()
    except Exception as error:
        if return_exceptions:
            return error
        raise
