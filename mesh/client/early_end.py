"""The end of a command by a signal while it starts Ray: at once.

The start takes seconds, much of it in code that no handler of Python interrupts. Where a whole process group is
signalled, Ray's daemons end first and the start waits half a minute for them. So a thread hears of the signal from the
interpreter itself, which writes its number to a socket, kills all that was started in the block, and leaves. Nothing
has been deployed by then. The kernel alone would kill Ray's daemons, but not what those have started: an agent that
looks for a daemon which is gone does so for a minute. A signal to the group may end the daemons before they are looked
at: so this process is the one that orphans get as their parent meanwhile.

There is one gap. For the first half second Ray waits in native code, and keeps the interpreter, until its GCS has
written a port. A GCS that a signal to the group has ended writes none, and no thread of Python runs before Ray gives up
after 30 s.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NoReturn

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_STDOUT = 1
_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def ending_at_once(end: Callable[[], object] | None = None) -> Iterator[None]:
    """In the block the first of these signals ends the process. In the main thread only, as signals are.

    A signal that is ignored stays so. `end` takes the place of `os._exit` in tests; it is called in another thread.
    """
    heard, written = socket.socketpair()
    written.setblocking(False)
    end = end or partial(_leave, _Processes.present())
    thread = threading.Thread(target=_wait, args=(heard, end), name="mesh-early-end", daemon=True)
    thread.start()
    _adopt_orphans(True)
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _adopt_orphans(False)
        written.close()
        thread.join()
        heard.close()


def _adopt_orphans(adopts: bool) -> None:
    """Whether descendants whose parent ends become children of this process. Linux only, elsewhere without effect."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopts), 0, 0, 0)


def _wait(heard: socket.socket, end: Callable[[], object]) -> None:
    """Until a signal, or the end of the block."""
    while number := heard.recv(1):
        if number[0] in _SIGNALS:
            end()
            return


def _leave(before: _Processes) -> NoReturn:
    """`before`: the processes that there were before the block. A shell that becomes this command leaves children."""
    _kill_descendants(spared=before.ids)
    with suppress(OSError):  # the terminal is gone, or what reads a pipe: an end by SIGHUP
        os.write(_STDOUT, b"\nStopping ...\n")
    os._exit(0)


def _kill_descendants(spared: Set[int]) -> None:
    """All but those and their descendants. Stopped first, so that none starts another one meanwhile."""
    stopped: set[int] = set()
    while found := _Processes.present().descendants_of(os.getpid(), spared) - stopped:
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

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(chain.from_iterable(self.by_parent.values()))

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
