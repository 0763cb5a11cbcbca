"""The end of a command by a signal while it starts Ray: at once.

The start takes seconds, much of it in code that no handler of Python interrupts. Where a whole process group is
signalled, Ray's daemons end first and the start waits half a minute for them. So a thread hears of the signal from the
interpreter itself, which writes its number to a socket, kills all that was started in the block, and leaves. Nothing
has been deployed by then. The kernel alone would kill Ray's daemons, but not what those have started: an agent that
looks for a daemon which is gone does so for a minute. A signal to the group may end the daemons before they are looked
at: so this process is the one that orphans get as their parent meanwhile.

For the first half second Ray waits in native code, and keeps the interpreter, until its GCS has written a port. A GCS
that a signal to the group has ended writes none, and no thread of Python runs before Ray gives up after 30 s. So a
second process, in a session of its own, looks at the same socket: this file, run as a script. Where a signal stays
there unread, it does what the thread would, and kills this process too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_STDOUT = 1
_PR_SET_CHILD_SUBREAPER = 36
_UNREAD_MAX_S = 1.0
"""How long a signal may stay unread before the guard ends the process: it ends by itself in a tenth of that."""
_LOOKS_EVERY_S = 0.1
"""Pause between two looks of the guard at the processes."""
_GUARD_ENDS_WITHIN_S = 5.0
"""How long the guard may take to end."""


@contextmanager
def ending_at_once(end: Callable[[], object] | None = None) -> Iterator[None]:
    """In the block the first of these signals ends the process. In the main thread only, as signals are.

    A signal that is ignored stays so. `end` takes the place of `os._exit` in tests; it is called in another thread.
    """
    heard, written = socket.socketpair()
    written.setblocking(False)
    # A shell that becomes this command leaves children.
    spared = _Processes.present().children_of(os.getpid())
    guard = _start_guard(heard, spared)
    thread = threading.Thread(
        target=_wait, args=(heard, end or partial(_leave, spared)), name="mesh-early-end", daemon=True
    )
    thread.start()
    _adopt_orphans(True)
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _adopt_orphans(False)
        written.close()  # which ends both
        thread.join()
        heard.close()
        _await_guard(guard)


def _adopt_orphans(adopts: bool) -> None:
    """Whether descendants whose parent ends become children of this process. Linux only, elsewhere without effect."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopts), 0, 0, 0)


def _wait(heard: socket.socket, end: Callable[[], object]) -> None:
    """Until the end of the block. The first signal counts; later ones are read, lest the guard takes them as unread."""
    # A byte that is read while another thread keeps the interpreter would be gone, and nothing done: so look first.
    while heard.recv(1, socket.MSG_PEEK):
        if heard.recv(1)[0] in _SIGNALS:
            end()
            break
    while heard.recv(4096):
        pass


def _leave(spared: Set[int]) -> NoReturn:
    _kill_descendants(os.getpid(), spared)
    _say_stopping()
    os._exit(0)


def _say_stopping() -> None:
    with suppress(OSError):  # the terminal is gone, or what reads a pipe: an end by SIGHUP
        os.write(_STDOUT, b"\nStopping ...\n")


def _start_guard(heard: socket.socket, spared: Set[int]) -> subprocess.Popen[bytes]:
    """Without the packages of the environment: it starts in a few hundredths of a second."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *map(str, (os.getpid(), heard.fileno(), *spared))],
        pass_fds=[heard.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await_guard(guard: subprocess.Popen[bytes]) -> None:
    try:
        guard.wait(_GUARD_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def _guard(process: int, heard: socket.socket, spared: Set[int]) -> None:
    """The guard's own process: until the block of `process` ends, or a signal to it stays unread."""
    while unread := heard.recv(4096, socket.MSG_PEEK):
        if _SIGNALS.isdisjoint(unread):
            time.sleep(_LOOKS_EVERY_S)
            continue
        time.sleep(_UNREAD_MAX_S)
        if os.getppid() == process and heard.recv(4096, socket.MSG_PEEK):
            _kill_descendants(process, spared | {os.getpid()})
            _say_stopping()
            _send(signal.SIGKILL, [process])
        return


def _kill_descendants(ancestor: int, spared: Set[int]) -> None:
    """Except those children and what they have started. Stopped first, so that none starts another one meanwhile."""
    stopped: set[int] = set()
    while found := _Processes.present().descendants_of(ancestor, spared) - stopped:
        _send(signal.SIGSTOP, found)
        stopped |= found
    _send(signal.SIGKILL, stopped)


def _send(number: signal.Signals, processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(OSError):  # it has ended
            os.kill(process, number)


@dataclass(frozen=True, slots=True)
class _Processes:
    """Those of the machine, by id. Linux only."""

    by_parent: Mapping[int, Sequence[int]]

    @classmethod
    def present(cls) -> _Processes:
        found: dict[int, list[int]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # After the name, which may contain anything: the state, then the parent.
                parent = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
                found.setdefault(parent, []).append(int(process.name))
        return cls(found)

    def children_of(self, parent: int) -> frozenset[int]:
        return frozenset(self.by_parent.get(parent, ()))

    def descendants_of(self, ancestor: int, spared: Set[int]) -> set[int]:
        """`spared`: those of its children that do not count, nor what they have started."""
        found = set(self.children_of(ancestor) - spared)
        parents = list(found)
        while parents:
            children = self.children_of(parents.pop()) - found
            found |= children
            parents += children
        return found


if __name__ == "__main__":
    _process, _socket, *_spared = map(int, sys.argv[1:])
    _guard(_process, socket.socket(fileno=_socket), frozenset(_spared))
