"""The log of failed calls: what user code raised, once and with its traceback.

A call that was cancelled, whose deadline passed or whose status user code chose has its answer: that is not a failure.
An exception that comes from another deployment was logged with its traceback there; here it is a warning of one line.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from mesh.exceptions import (
    BackPressureError,
    DeadlineExceededError,
    DeploymentUnavailableError,
    GrpcStatusError,
    RemoteError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from mesh.logs.flood_limit import FloodLimit
from mesh.settings import settings
from mesh.wire.outcome import describe, has_remote_traceback

logger = logging.getLogger("mesh")

_WINDOW_S = 10.0
"""The period that `failures_max` is about."""
_HEADLINE_MAX_CHARS = 500
_ANSWERS = (GrpcStatusError, RequestCancelledError, DeadlineExceededError, BackPressureError)
_FROM_CALLS = (RemoteError, ReplicaUnavailableError, DeploymentUnavailableError)


class FailureLog:
    """The failed calls of one replica; from any thread. Used only when a call has failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit: FloodLimit | None = None
        self._lock = threading.Lock()

    def record(self, method: str, request_id: str, error: BaseException) -> None:
        """Log that a call of `method` failed. Never raises: whatever the exception is, its call has to end."""
        # Texts of exceptions, filters and handlers of logs are all the user's.
        with contextlib.suppress(BaseException):
            if not isinstance(error, _ANSWERS):
                self._record(method, request_id, error)

    def _record(self, method: str, request_id: str, error: BaseException) -> None:
        with self._lock:
            limit = self._limit = self._limit or FloodLimit(settings().logs.failures_max, _WINDOW_S)
            suppressed = limit.begin(self._clock())
            number = limit.admit((method, type(error).__qualname__))
        if suppressed:
            logger.warning("%d more failed calls were not logged", suppressed)
        if not number:
            return
        more = ". More failures of this kind are not logged for some seconds" if number == limit.per_window else ""
        headline = describe(error).partition("\n")[0][:_HEADLINE_MAX_CHARS]
        extra = {"request_id": request_id}
        if isinstance(error, _FROM_CALLS) or has_remote_traceback(error):
            logger.warning("%s failed in a call that it made: %s%s", method, headline, more, extra=extra)
        else:
            logger.error("%s failed: %s%s", method, headline, more, exc_info=error, extra=extra)


failure_log = FailureLog()
"""That of this process."""
