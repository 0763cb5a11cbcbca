"""`UserCheck`: runs the user's authentication function on a thread and loop of its own.

The function may block, hang or fail without harm to calls that need no answer from it: the I/O loop only hands over
the request and takes the answer. Time and number of checks are limited, and no failure lets a client in.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from gateway.requests.routes import Refusal
from mesh.authentication import ClientRequest, Refused
from mesh.exceptions import GrpcStatusError
from mesh.logs.flood_limit import FloodLimit
from mesh.rpc.status_codes import UNAUTHENTICATED, UNAVAILABLE
from mesh.wire.identity import Identity

logger = logging.getLogger("mesh.gateway")

AuthenticationFunction = Callable[[ClientRequest], Awaitable[Identity | Refused]]

_LOGGED_MAX, _LOGGED_PER_S = 3, 10.0
_STOP_TIMEOUT_S = 1.0
"""How long checks that run may take to end when the gateway stops."""

_FAILED = Refusal(UNAUTHENTICATED, "The credentials of this request could not be checked; the gateway's log says why.")
_TOO_LATE = Refusal(UNAVAILABLE, "The credentials of this request were not checked in time. Retry later.")
_TOO_MANY = Refusal(UNAVAILABLE, "This gateway checks the credentials of too many requests already. Retry later.")
_CLOSED = Refusal(UNAVAILABLE, "This gateway is ending. Retry, which leads to another one.")


class PendingCheck:
    """One answer that is awaited. I/O loop only."""

    __slots__ = ("_decide", "timer")

    def __init__(self, decide: Callable[[Identity | Refusal], None]) -> None:
        self._decide: Callable[[Identity | Refusal], None] | None = decide
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        self._decide = None
        if self.timer is not None:
            self.timer.cancel()

    def finish(self, answer: Identity | Refusal) -> None:
        """Pass on the answer; only the first one counts."""
        decide = self._decide
        self.cancel()
        if decide is not None:
            decide(answer)


class UserCheck:
    """Created, asked and closed on the I/O loop."""

    def __init__(self, function: AuthenticationFunction, timeout_s: float, concurrent_max: int) -> None:
        self._function = function
        self._timeout_s = timeout_s
        self._concurrent_max = concurrent_max
        self._io_loop = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._pending: set[PendingCheck] = set()
        self._running = 0
        """Checks whose function has not ended, whether their answer is still wanted or not."""
        self._tasks: set[asyncio.Task[Identity | Refusal]] = set()
        """Tasks of the thread's loop, which itself does not keep them alive."""
        self._is_closed = False
        self._flood_limit = FloodLimit(_LOGGED_MAX, _LOGGED_PER_S)
        self._thread = threading.Thread(target=self._serve, name="mesh-authentication", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<UserCheck {self._function.__module__}:{self._function.__qualname__}, running: {self._running}>"

    def ask(self, request: ClientRequest, decide: Callable[[Identity | Refusal], None]) -> PendingCheck | Refusal:
        """Let the function decide. `decide` is called once, later, unless the check is cancelled."""
        if self._is_closed:
            return _CLOSED
        if self._running >= self._concurrent_max:
            return _TOO_MANY
        pending = PendingCheck(decide)
        self._pending.add(pending)
        self._running += 1
        pending.timer = self._io_loop.call_later(self._timeout_s, self._finish, pending, _TOO_LATE)
        self._loop.call_soon_threadsafe(self._begin, request, pending)
        return pending

    def close(self) -> None:
        """Refuse what is pending, and end the thread. A function that blocks ends with the process."""
        self._is_closed = True
        for pending in list(self._pending):
            self._finish(pending, _CLOSED)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _finish(self, pending: PendingCheck, answer: Identity | Refusal) -> None:
        self._pending.discard(pending)
        pending.finish(answer)

    def _take(self, pending: PendingCheck, answer: Identity | Refusal) -> None:
        self._running -= 1
        self._finish(pending, answer)

    # ---- On the thread -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._run()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                self._loop.run_until_complete(asyncio.wait(self._tasks, timeout=_STOP_TIMEOUT_S))
        finally:
            self._loop.close()

    def _run(self) -> None:
        """Until `close` stops the loop."""
        while True:
            try:
                self._loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these out of the loop when a task that the function has started raises them.
                logger.exception("a task of the authentication function tried to end the process")

    def _begin(self, request: ClientRequest, pending: PendingCheck) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: self._tell(pending, _CLOSED if done.cancelled() else done.result()))

    def _tell(self, pending: PendingCheck, answer: Identity | Refusal) -> None:
        if not self._io_loop.is_closed():
            self._io_loop.call_soon_threadsafe(self._take, pending, answer)

    async def _answer(self, request: ClientRequest) -> Identity | Refusal:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._function(request)
            if isinstance(answer, Identity):
                return answer
            if isinstance(answer, Refused):
                return refusal_of(answer)
            raise TypeError(f"an authentication function returns an Identity or Refused, got {type(answer).__name__}")
        except GrpcStatusError as error:
            return Refusal(error.code.value[0] or UNAUTHENTICATED, error.details)
        except TimeoutError:
            return _TOO_LATE
        except (Exception, SystemExit, KeyboardInterrupt):  # a function that calls sys.exit() must not end its thread
            self._log_failure()
            return _FAILED

    def _log_failure(self) -> None:
        suppressed = self._flood_limit.begin(time.monotonic())
        if suppressed:
            logger.warning("%d more failures of the authentication function were not logged", suppressed)
        if self._flood_limit.admit("failure"):
            logger.exception("the authentication function failed; the request is refused")


def load_function(path: str) -> AuthenticationFunction:
    """The async function at "package.module:function". Raises ImportError, or TypeError for something else."""
    option = "grpc_options['authentication']['function']"
    module_name, _, name = path.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"{option}: cannot import {path} on this node: {error}.") from error
    if not inspect.iscoroutinefunction(found):
        raise TypeError(f"{option}: {path} must be an `async def` function, it is {type(found).__name__}.")
    function: AuthenticationFunction = found
    return function


def refusal_of(refused: Refused) -> Refusal:
    """With the status that the check has chosen; OK would let the client in, so it counts as UNAUTHENTICATED."""
    return Refusal(refused.code.value[0] or UNAUTHENTICATED, refused.details)
