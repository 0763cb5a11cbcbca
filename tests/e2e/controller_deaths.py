"""The death of the controller: of its process, now or at a random moment of an operation."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e import leftovers
from tests.e2e.waiting import until

WITHIN_S = 1.0
"""Of the beginning of an operation, which takes longer."""


def controller_pid() -> int:
    """0 while there is none."""
    found = leftovers.actor_processes("controller")
    return int(found[0].partition(" ")[0]) if found else 0


def kill_controller() -> None:
    """Returns when it is dead; Ray starts another one."""
    pid = until(controller_pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: controller_pid() != pid)


@contextmanager
def killed_controller(within_s: float = WITHIN_S) -> Iterator[None]:
    """It is killed at some moment of the block, or soon after it began; another one is there at its end.

    A test that fails shows the moment.
    """
    moment_s = random.uniform(0.0, within_s)
    print(f"The controller is killed {moment_s:.3f} s after the operation began.")
    killer = threading.Timer(moment_s, kill_controller)
    killer.start()
    try:
        yield
    finally:
        killer.join(timeout=40)
    assert not killer.is_alive()
    until(controller_pid)
