"""The watchdog of the controller: a thread that sees when the event loop, or the control loop on it, hangs.

The controller checks the health of replicas and gateways; nothing checks the controller but itself. The rule is the
same: several checks in a row have to fail.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Protocol

from mesh.controller.hang_rule import LoopReading, WatchedLoop
from mesh.defaults.control_settings import ControllerSettings
from mesh.wire.telemetry import GAUGE, Family, Sample

LOOP_LAG = Family(
    "mesh_controller_loop_lag_seconds", GAUGE, "Longest delay of the event loop in the last 60 checks, one a second."
)

_LAGS_KEPT = 60
_CHECKS_MIN = 5
"""Checks that have to see a loop stand still, however short the timeout is."""


class EventLoopThread(Protocol):
    """The thread of the event loop; implemented by mesh.wire.io_thread."""

    thread: threading.Thread

    def post(self, function: Callable[..., None], *args: object) -> None: ...


class LoopWatchdog:
    """Checks both loops from a thread of its own, and calls `on_hang` there, once."""

    def __init__(
        self,
        io: EventLoopThread,
        turns: Callable[[], int],
        on_hang: Callable[[str], None],
        limits: ControllerSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`turns`: how many turns of the control loop have ended, well or not. `on_hang` gets the reason in words."""
        self._io = io
        self._turns = turns
        self._on_hang = on_hang
        self._limits = limits
        self._clock = clock
        self._interval_s = min(1.0, limits.hang_timeout_s / _CHECKS_MIN)
        self._beats = 0
        self._lags_s = deque([0.0], maxlen=_LAGS_KEPT)
        self._is_posted = False
        self._event_loop = WatchedLoop(last=self._reading(self._beats), interval_s=self._interval_s)
        self._control_loop = WatchedLoop(last=self._reading(turns()), interval_s=self._interval_s)

    def __repr__(self) -> str:
        return f"<LoopWatchdog event loop {self._event_loop.still_s:g} s, turn {self._control_loop.still_s:g} s>"

    def start(self) -> None:
        """Watch for as long as the process lives, unless MESH_CONTROLLER_HANG_TIMEOUT_S is 0."""
        if self._limits.hang_timeout_s:
            threading.Thread(target=self._run, name="mesh-watchdog", daemon=True).start()

    def check(self) -> str:
        """What hangs, in words; empty: nothing does. Called once an interval."""
        self._event_loop = self._event_loop.checked(self._reading(self._beats))
        self._control_loop = self._control_loop.checked(self._reading(self._turns()))
        if not self._is_posted:
            self._is_posted = True
            self._io.post(self._beat, self._clock())
        if self._event_loop.still_s >= self._limits.hang_timeout_s:
            return f"the event loop has hung for {self._event_loop.still_s:g} s"
        if self._control_loop.still_s >= self._turn_timeout_s:
            return f"a turn of the control loop has not ended for {self._control_loop.still_s:g} s"
        return ""

    def samples(self) -> Iterator[tuple[Family, list[Sample]]]:
        yield LOOP_LAG, [Sample((), max(self._lags_s))]

    @property
    def _turn_timeout_s(self) -> float:
        """Added is what may pass between the ends of two turns, by the limits that these have themselves."""
        limits = self._limits
        return limits.hang_timeout_s + limits.nodes_timeout_s + 2 * limits.turn_interval_s

    def _reading(self, beats: int) -> LoopReading:
        return LoopReading(at_s=self._clock(), beats=beats, starved_s=_starved_s(self._io.thread))

    def _beat(self, posted_at_s: float) -> None:
        """On the event loop."""
        self._lags_s.append(self._clock() - posted_at_s)
        self._beats += 1
        self._is_posted = False

    def _run(self) -> NoReturn:
        while True:
            time.sleep(self._interval_s)
            if reason := self.check():
                self._on_hang(reason)
                raise SystemExit


def _starved_s(thread: threading.Thread) -> float:
    """How long a thread has waited for a processor in all; 0.0 where the system does not tell."""
    try:
        return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
