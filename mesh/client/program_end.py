"""The end of a Python program that runs applications: what it waits for, drains and says."""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import FrameType
from typing import NoReturn

from mesh.client.ray_guard import PERIOD_S, RAY_HAS_ENDED, RayGuard, leave
from mesh.cluster import ray_core, ray_watch

logger = logging.getLogger("mesh")


class ProgramEnd:
    """One per process."""

    def __init__(self, shutdown: Callable[[], None]) -> None:
        """`shutdown` drains and ends the mesh."""
        self._shutdown = shutdown
        self._applications: dict[str, None] = {}
        self._has_served = False
        self._has_ray_ended = False

    def __repr__(self) -> str:
        return f"<ProgramEnd applications={list(self._applications)} has_served={self._has_served}>"

    def deployed(self, application: str) -> None:
        """The program has deployed it: at its end it says so if Ray ends too."""
        self._applications[application] = None
        _ = self._registration

    def deleted(self, application: str) -> None:
        self._applications.pop(application, None)

    def all_deleted(self) -> None:
        self._applications.clear()

    def serve(self, deploy: Callable[[], object]) -> NoReturn:
        """Deploy, and wait until the program is asked to end.

        Raises KeyboardInterrupt; SystemExit after SIGTERM, once a mesh that ends with the program is drained; and
        SystemExit with a message when Ray has ended.
        """
        self._has_served = True
        with _sigterm_raised():
            try:
                deploy()
                self._wait()
            except _Terminated:
                self._drain()
                raise
            except KeyboardInterrupt:
                self._log_interrupt()
                raise

    def _wait(self) -> NoReturn:
        logger.info("running until interrupted")
        watch = ray_watch.RayWatch()
        while not watch.has_ended(needs_gcs=False):
            time.sleep(PERIOD_S)
        self._has_ray_ended = True
        sys.exit(RAY_HAS_ENDED)

    def _drain(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with RayGuard() as guard:
            guard.expect_end()
            if ray_watch.owns_ray():
                self._shutdown()
            else:
                self._log_interrupt()

    def _log_interrupt(self) -> None:
        end = "this program ends" if ray_watch.owns_ray() else "mesh.delete() or mesh.shutdown()"
        logger.warning("interrupted; the application keeps running until %s", end)

    @cached_property
    def _registration(self) -> object:
        """Ray's own exit handlers, registered earlier, run later."""
        return atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        if self._has_ray_ended:
            leave(1)
        if self._applications and not self._has_served and ray_core.is_connected() and ray_watch.owns_ray():
            logger.warning(
                "Ray, which this program started, ends with it, and so does %s. To keep it running: "
                "mesh.run(..., blocking=True), or `ray start --head` before this program.",
                ", ".join(self._applications),
            )


class _Terminated(SystemExit):
    """SIGTERM has arrived."""


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """SIGTERM raises _Terminated with status 0. Ray's handler would print a stack trace and end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(0)
