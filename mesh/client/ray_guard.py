"""The end of this process when its Ray has ended first: within seconds, with one line.

A process manager that signals a whole process group, and `ray stop`, end Ray's daemons first. Then nothing is left to
drain or to delete: actors end with their raylet. But calls into Ray would block for up to a minute, and Ray's exit
handlers for ten seconds. So a thread watches Ray and leaves by `os._exit`, which skips both. The daemons that this
process has started are killed by the kernel when it ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Protocol, Self

from mesh.cluster import ray_watch

RAY_HAS_ENDED = (
    "Ray has ended (`ray stop`, the end of the program that started it, or a failure that its logs explain), and all "
    "applications with it."
)
RAY_ENDED_FIRST = (
    "Ray ended first, so calls in progress were cut off. To drain them, signal only this process and not its whole "
    "group (systemd: KillMode=mixed)."
)
PERIOD_S = 0.5
"""Pause between two looks at Ray."""

_SIGNAL_DELAY_S = 0.5
"""Python may handle a signal later than the thread sees what the same signal did to Ray."""
_RAY_ENDS_WITHIN_S = 3.0
"""How long Ray's daemons take to end after a signal to them and to this process."""


class Watch(Protocol):
    """Implemented by mesh.cluster.ray_watch."""

    def has_ended(self, *, needs_gcs: bool) -> bool: ...


class RayGuard:
    """Ends this process when Ray has ended: with status 1, or with 0 after `expect_end`.

    It is active from the beginning of the `with` block until this process ends. A process that has started Ray ends it
    too, after the block; there the guard is active only inside.
    """

    def __init__(
        self, watch: Watch | None = None, is_owner: bool | None = None, end: Callable[[int], object] | None = None
    ) -> None:
        """The arguments are for tests."""
        self._watch: Watch = ray_watch.RayWatch() if watch is None else watch
        self._is_owner = ray_watch.owns_ray() if is_owner is None else is_owner
        self._end = end or leave
        self._expects_end = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray guard", daemon=True)

    def __repr__(self) -> str:
        return f"<RayGuard expects_end={self._expects_end.is_set()} is_over={self._is_over.is_set()}>"

    def expect_end(self) -> None:
        """This process was asked to end. From now on, a GCS that is silent counts as ended too."""
        self._expects_end.set()

    def wait_for_end(self) -> None:
        """Wait briefly for the end of Ray, if this process was asked to end: the same signal may have gone to Ray.

        For a caller that found nothing left to end, or no Ray that answers. Ray's own end would wait a minute for
        daemons that end meanwhile.
        """
        if self._expects_end.is_set():
            self._thread.join(_RAY_ENDS_WITHIN_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_owner:
            if isinstance(error, Exception):
                # Probably of a call into a Ray that ends meanwhile. Ray's hook for it would wait a minute for its GCS.
                self.wait_for_end()
            self._is_over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._watch.has_ended(needs_gcs=self._expects_end.is_set()):
            if self._is_over.wait(PERIOD_S):
                return
        is_expected = self._expects_end.wait(_SIGNAL_DELAY_S)
        with suppress(OSError, ValueError):  # nothing reads it any more
            print(RAY_ENDED_FIRST if is_expected else RAY_HAS_ENDED, file=sys.stderr)
        self._end(0 if is_expected else 1)


def leave(status: int) -> NoReturn:
    """End this process at once, without exit handlers: those of Ray would wait for a Ray that is gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
