"""The end of a command by a signal while it starts Ray: at once.

The start takes seconds, much of it in code that no handler of Python interrupts. Where a whole process group is
signalled, Ray's daemons end first and the start waits half a minute for them. So a thread hears of the signal from the
interpreter itself, which writes its number to a socket, and leaves. Nothing has been deployed by then, and the kernel
kills the daemons that a process has started when it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    os._exit(0)
