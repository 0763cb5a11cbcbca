"""The name and the logs of a process of the mesh.

Theory of operation. Our handler is Python's `logging.lastResort`: it gets the records that no other handler gets. So
user code that configures `logging`, at whatever time, gets exactly what it asks for; all other code gets ours. What
user code prints, or logs to a stream by a configuration of its own, reaches the log file as captured output.

`logging.info` and its siblings call `basicConfig()` where there is no handler. The user did not ask for that, so in our
processes `basicConfig` without arguments does nothing. Nor has the user asked for Ray's handler of the logger `ray`: it
keeps the records of `ray.serve`, by which applications written for Ray Serve log, so that one is a child of the root.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from mesh.cluster import ray_core
from mesh.logs.captured_output import CapturedOutput
from mesh.logs.log_files import DIRECTORY, LogFile, LogName, open_log_file
from mesh.logs.log_form import RequestFilter, formatter_of
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_RAY_MARKS = (":actor_name:", ":job_id:", ":task_name:")
"""Lines that Ray prints for its own reader of the output of its processes."""
_RAY_SERVE_LOGGER = "ray.serve"


def begin_process(actor: object, name: LogName, options: control_pb2.LoggingOptions) -> ProcessLogs:
    """Name the process of the calling actor and set up its logs. Called once, before any user code is imported."""
    ray_core.name_this_actor(actor, name.title)
    logs = ProcessLogs(name, Path(ray_core.logs_directory()) / DIRECTORY)
    logging.lastResort = logs
    logging.basicConfig = _only_if_asked(logging.basicConfig)
    logging.getLogger(_RAY_SERVE_LOGGER).parent = logging.getLogger()
    for stream_name in ("stdout", "stderr"):
        logs.capture(stream_name)
    logs.configure(options)
    return logs


class Console(logging.StreamHandler[TextIO]):
    """The stderr of the process, which user code may have closed: that stops nothing but what is written there."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Reports what is wrong with the record, as `logging` does, if there is still a place for that."""
        with contextlib.suppress(ValueError):
            super().handleError(record)


class ProcessLogs(logging.Handler):
    """Hands each record of this process to its log file and to stderr, completed and in one form."""

    def __init__(self, name: LogName, directory: Path) -> None:
        super().__init__()
        self._name = name
        self._directory = directory
        self._filter = RequestFilter(name, ray_core.process_ids())
        self._console = Console(sys.stderr)
        self._file: LogFile | None = None
        self._readers: tuple[logging.Handler, ...] = ()
        self.addFilter(self._filter)

    def configure(self, options: control_pb2.LoggingOptions) -> None:
        """Take over format, level and directory. The level is that of the root logger, which user code may change."""
        logging.getLogger().setLevel(options.level)
        directory = Path(options.directory) if options.directory else self._directory
        if self._file is None or self._file.directory != directory:
            self._move_to(directory)
        for handler in self._handlers():
            handler.setFormatter(formatter_of(options))

    def capture(self, stream_name: str) -> None:
        """Let the log file have the lines of sys.stdout or sys.stderr too."""
        setattr(
            sys, stream_name, CapturedOutput(getattr(sys, stream_name), functools.partial(self._print, stream_name))
        )

    def copy_to(self, reader: logging.Handler) -> None:
        """Hand each record to this handler too, in its own form.

        A handler of a logger would get them as well, but then `logging` considers them handled.
        """
        self._readers = (*self._readers, reader)

    def emit(self, record: logging.LogRecord) -> None:
        """Records with `extra={"log_to_stderr": False}` are for the file only."""
        handlers = [*self._handlers(), *self._readers]
        if vars(record).get("log_to_stderr") is False:
            handlers.remove(self._console)
        for handler in handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def _handlers(self) -> list[logging.Handler]:
        return [self._console] if self._file is None else [self._console, self._file]

    def _print(self, stream_name: str, line: str) -> None:
        if self._file is not None and not line.startswith(_RAY_MARKS):
            record = logging.LogRecord(stream_name, logging.INFO, stream_name, 0, line, (), None)
            self._filter.filter(record)
            self._file.handle(record)

    def _move_to(self, directory: Path) -> None:
        """Go on in the file of that directory; stay where that is not possible."""
        before = self._file
        try:
            self._file = open_log_file(directory, self._name, link_in=self._directory)
        except OSError as error:
            logger.warning("this process has no log file in %s: %s", directory, error)
            return
        if before is not None:
            before.close()


def _only_if_asked(basic_config: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(basic_config)
    def configure(**given: Any) -> None:
        if given:
            basic_config(**given)

    return configure
