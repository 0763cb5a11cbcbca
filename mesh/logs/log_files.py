"""The log files of a node: one per process, named after what runs in it, of bounded size and number."""

from __future__ import annotations

import contextlib
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from mesh.defaults.control_settings import LogSettings
from mesh.settings import settings

DIRECTORY = "mesh"
"""Below Ray's log directory of the session."""
_SEPARATOR = "#"
_SUFFIX = ".log"


class LogName(NamedTuple):
    """What a log file belongs to."""

    kind: str
    """replica, policy, gateway or controller."""
    app: str = ""
    deployment: str = ""
    process_id: str = ""
    """Id of the replica or gateway."""

    @property
    def file_name(self) -> str:
        """Names of users may contain any character."""
        return _SEPARATOR.join(quote(part, safe=" ") for part in self if part) + _SUFFIX

    @property
    def component(self) -> str:
        """As records name it."""
        where = f"{self.app}/{self.deployment}" if self.app else ""
        return f"{self.kind} {where}{'#' if where and self.process_id else ''}{self.process_id}".rstrip()

    @property
    def title(self) -> str:
        """The title of the process in `ps` and `top`."""
        return self.component.removeprefix("replica ") if self.kind == "replica" else f"mesh-{self.component}"

    @classmethod
    def read(cls, file_name: str) -> LogName | None:
        """The reverse of `file_name`, also for a file that was renamed because it was full."""
        stem, suffix, _ = file_name.rpartition(_SUFFIX)
        parts = [unquote(part) for part in stem.split(_SEPARATOR)]
        match parts:
            case _ if not suffix:
                return None
            case ["replica", app, deployment, replica_id]:
                return cls("replica", app, deployment, replica_id)
            case ["policy", app, deployment]:
                return cls("policy", app, deployment)
            case ["gateway", gateway_id]:
                return cls("gateway", process_id=gateway_id)
            case ["controller"]:
                return cls("controller")
        return None


class LogFile(RotatingFileHandler):
    """The log file of one process. A full disk stops nothing but the log."""

    def __init__(self, path: Path) -> None:
        limits = settings().logs
        self.directory = path.parent
        super().__init__(
            path,
            maxBytes=limits.file_max_bytes,
            backupCount=limits.files_per_process - 1,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Begins a new file when another process has deleted this one to make room."""
        if self.stream is not None and not os.path.exists(self.baseFilename):
            self.stream.close()
            self.stream = None  # opened again by `emit`
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing: a report would be written to this file too."""


def open_log_file(directory: Path, name: LogName, link_in: Path) -> LogFile:
    """Make room in the directory if necessary, and open the file. Raises OSError.

    If it is another directory than `link_in`, a link there leads readers to the file.
    """
    link = link_in / name.file_name
    for each in {directory, link_in}:
        each.mkdir(parents=True, exist_ok=True)
    make_room(directory, settings().logs)
    if link.is_symlink():
        link.unlink()
    if directory != link_in:
        if link.exists():
            link.rename(link.with_name(f"{link.name}.1"))
        link.symlink_to(directory / name.file_name)
    return LogFile(directory / name.file_name)


def make_room(directory: Path, limits: LogSettings) -> None:
    """Delete the files that were not written to for longest, until the others are within the limits of a node."""
    files = sorted(_stats(directory), key=lambda each: each[0], reverse=True)
    total_bytes = 0
    for number, (_, size_bytes, path) in enumerate(files, start=1):
        total_bytes += size_bytes
        if number > limits.node_files_max or total_bytes > limits.node_max_bytes:
            path.unlink(missing_ok=True)


def _stats(directory: Path) -> list[tuple[float, int, Path]]:
    """Time of the last change, size and path of each log file."""
    found = []
    for path in directory.iterdir():
        if LogName.read(path.name) is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # another process has made room, or renamed its file
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found
