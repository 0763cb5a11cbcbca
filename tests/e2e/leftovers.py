"""What a run leaves behind: processes, listening ports and files. Linux only.

Every process of a run inherits an environment variable with the run's own value and is found by it.
"""

import os
import re
import socket
from pathlib import Path

_MESH_PROCESS = re.compile(r"ray::(mesh-\w+|\S+/\S+#|\w+Actor\b)")

MARK = "MESH_E2E_RUN"


def processes_of_this_run(value: str | None = None) -> list[str]:
    """Process ids and command lines of other processes that carry this run's mark, or that of one of its programs."""
    return processes_with(f"{MARK}={value or os.environ[MARK]}")


def processes_with(variable: str) -> list[str]:
    """Process ids and command lines of other processes that began with this in their environment, as NAME=VALUE."""
    own = str(os.getpid())
    candidates = (process for process in Path("/proc").glob("[0-9]*") if process.name != own)
    return [command for process in candidates if (command := marked_command(process, variable.encode()))]


def marked_command(process: Path, mark: bytes) -> str:
    try:
        if mark not in (process / "environ").read_bytes().split(b"\0"):
            return ""
        return f"{process.name} {(process / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}".strip()
    except OSError:  # it has just ended, or belongs to another user
        return ""


def mesh_processes() -> list[str]:
    """Those that run actors of the mesh, by the names that those have given to them or Ray does."""
    return [command for command in processes_of_this_run() if _MESH_PROCESS.search(command)]


def actor_processes(kind: str) -> list[str]:
    """Those of `mesh_processes` that run a controller, a gateway or a policy.

    While Ray runs a method of an actor, it shows the actor's class instead of the name that the process has given
    itself.
    """
    titles = (f"ray::mesh-{kind}", f"ray::{kind.capitalize()}Actor")
    return [command for command in mesh_processes() if command.split(maxsplit=1)[1].startswith(titles)]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def files_below(directory: Path) -> list[str]:
    return [str(path) for path in directory.rglob("*") if not path.is_dir()]
