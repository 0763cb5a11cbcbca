"""The name and the logs of a process of the mesh.

Theory of operation. Our handler is Python's `logging.lastResort`: it gets the records that no other handler gets. So
user code that configures `logging`, at whatever time, gets exactly what it asks for; all other code gets ours. What
user code prints, or logs to a stream by a configuration of its own, reaches the log file as captured output.

`logging.info` and its siblings call `basicConfig()` where there is no handler. That is no wish of the user, so in our
processes `basicConfig` without arguments does nothing.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh.cluster import ray_core
from mesh.logs.captured_output import CapturedOutput
from mesh.logs.log_files import DIRECTORY, LogFile, LogName, open_log_file
from mesh.logs.log_form import RequestFilter, TextFormatter

logger = logging.getLogger("mesh")


def begin_process(actor: object, name: LogName) -> None:
    """Name the process of the calling actor and set up its logs. Called once, before any user code is imported."""
    ray_core.name_this_actor(actor, name.title)
    handler = ProcessHandler(name.component, logging.StreamHandler(sys.stderr))
    logging.lastResort = handler
    logging.basicConfig = _only_if_asked(logging.basicConfig)
    logging.getLogger().setLevel(logging.INFO)
    try:
        file = open_log_file(Path(ray_core.logs_directory()) / DIRECTORY, name)
    except OSError as error:
        logger.warning("this process has no log file: %s", error)
        return
    handler.add(file)
    for stream_name in ("stdout", "stderr"):
        capture(stream_name, file)


def capture(stream_name: str, file: LogFile) -> None:
    """Let the log file have the lines of sys.stdout or sys.stderr too."""

    def on_line(line: str) -> None:
        file.handle(logging.LogRecord(stream_name, logging.INFO, stream_name, 0, line, (), None))

    setattr(sys, stream_name, CapturedOutput(getattr(sys, stream_name), on_line))


def _only_if_asked(basic_config: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(basic_config)
    def configure(**given: Any) -> None:
        if given:
            basic_config(**given)

    return configure


class ProcessHandler(logging.Handler):
    """Hands each record to several handlers, completed and in one form."""

    def __init__(self, component: str, *handlers: logging.Handler) -> None:
        super().__init__()
        self._component = component
        self._handlers: list[logging.Handler] = []
        for handler in handlers:
            self.add(handler)

    def add(self, handler: logging.Handler) -> None:
        handler.addFilter(RequestFilter(self._component))
        handler.setFormatter(TextFormatter())
        self._handlers.append(handler)

    def emit(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            handler.handle(record)
