"""What calls cost the processes that serve them: their CPU time, their memory, and which ones they are."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Roles = dict[str, tuple[int, ...]]
"""What processes do in a row ("front", "replica", "caller") to their process ids."""

PROC = Path("/proc")
LISTEN = "0A"
CPUCLOCK_SCHED = 2
"""With it and a pid the kernel makes a clock, as clock_getcpuclockid(3) does, which Python does not have."""


def cpu_us(pid: int) -> float:
    """CPU time of a process, of threads that have ended too. /proc counts in 10 ms, or only at a clock tick."""
    process_clock = (~pid << 3) | CPUCLOCK_SCHED
    return time.clock_gettime_ns(process_clock) / 1000


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def by_role(measure: Callable[[int], float], roles: Roles) -> dict[str, float]:
    return {role: sum(map(measure, pids)) for role, pids in roles.items()}


class CpuMeter:
    """The CPU time of processes from here on."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._start = by_role(cpu_us, roles)

    def us_per_call(self, calls: int) -> dict[str, float]:
        return {role: (end - self._start[role]) / calls for role, end in by_role(cpu_us, self._roles).items()}


def listening(port: int) -> tuple[int, ...]:
    """The processes that listen on a TCP port of this machine."""
    tables = [(PROC / "net" / name).read_text() for name in ("tcp", "tcp6")]
    sockets = {f"socket:[{inode}]" for table in tables for inode in listening_inodes(table, port)}
    pids = tuple(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and sockets & set(_files(entry)))
    if not pids:
        raise RuntimeError(f"no process that we may look into listens on port {port}")
    return pids


def listening_inodes(table: str, port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on `port`, from the text of /proc/net/tcp."""
    for line in table.splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
            yield rest[5]


def _files(process: Path) -> Iterator[str]:
    try:
        for link in (process / "fd").iterdir():
            yield os.readlink(link)
    except OSError:  # it has ended, or belongs to another user
        return
