"""The end of a command by a signal while it starts Ray: at once.

The start takes seconds, much of it in code that no handler of Python interrupts. Where a whole process group is
signalled, Ray's daemons end first and the start waits half a minute for them. So a thread hears of the signal from the
interpreter itself, which writes its number to a socket, kills all that this process has started, and leaves. Nothing
has been deployed by then. The kernel alone would kill Ray's daemons, but not what those have started: an agent that
looks for a daemon which is gone does so for a minute.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextmanager
def ending_at_once(end: Callable[[], object] | None = None) -> Iterator[None]:
    """In the block the first of these signals ends the process. In the main thread only, as signals are.

    A signal that is ignored stays so. `end` takes the place of `os._exit` in tests; it is called in another thread.
    """
    heard, written = socket.socketpair()
    written.setblocking(False)
    thread = threading.Thread(target=_wait, args=(heard, end or _leave), name="mesh-early-end", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()
        thread.join()
        heard.close()


def _wait(heard: socket.socket, end: Callable[[], object]) -> None:
    """Until a signal, or the end of the block."""
    while number := heard.recv(1):
        if number[0] in _SIGNALS:
            end()
            return


def _leave() -> NoReturn:
    sys.stdout.write("\nStopping ...\n")
    sys.stdout.flush()
    _kill_descendants()
    os._exit(0)


def _kill_descendants() -> None:
    """Stopped first, so that none of them starts another one meanwhile."""
    stopped: set[int] = set()
    while found := _descendants_of(os.getpid()) - stopped:
        _send(signal.SIGSTOP, found)
        stopped |= found
    _send(signal.SIGKILL, stopped)


def _send(number: signal.Signals, processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(OSError):  # it has ended
            os.kill(process, number)


def _descendants_of(ancestor: int) -> set[int]:
    """Process ids. Linux only."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # After the name, which may contain anything: the state, then the parent.
            children[int((process / "stat").read_text().rpartition(")")[2].split()[1])].append(int(process.name))
    found: set[int] = set()
    parents = [ancestor]
    while parents:
        of_one = children.pop(parents.pop(), [])
        found.update(of_one)
        parents += of_one
    return found
