"""The captured output of a process: what user code prints goes to its log file too, line by line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO

_LINE_MAX_CHARS = 64 * 1024


class CapturedOutput:
    """Stands for sys.stdout or sys.stderr: passes everything on, and each complete line to `on_line` as well."""

    def __init__(self, stream: TextIO, on_line: Callable[[str], None]) -> None:
        self._stream = stream
        self._on_line = on_line
        # Per thread: `print` writes its text and the end of the line separately.
        self._unfinished = threading.local()

    def write(self, text: str) -> int:
        self._stream.write(text)
        *lines, rest = map(_as_on_a_terminal, (getattr(self._unfinished, "text", "") + text).split("\n"))
        if len(rest) > _LINE_MAX_CHARS:
            lines, rest = [*lines, rest], ""
        self._unfinished.text = rest
        for line in lines:
            if line.strip():
                self._on_line(line.rstrip("\r"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's."""
        return getattr(self._stream, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled and copied like the stream, which for files is a TypeError that says so."""
        return self._stream.__reduce_ex__(protocol)


def _as_on_a_terminal(line: str) -> str:
    """Without what a carriage return lets the rest of the line overwrite, such as earlier states of a progress bar."""
    return line[line.rstrip("\r").rfind("\r") + 1 :]
