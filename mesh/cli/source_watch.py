"""The files that `mesh run --reload` watches: Python's below a directory, and the target if it is a file.

Their state is read again at each look; nothing runs between two looks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

FILES_MAX = 20_000
_NOT_SOURCES = frozenset({"__pycache__", "node_modules", "site-packages"})


class _Stamp(NamedTuple):
    """What differs once a file was written."""

    mtime_ns: int
    size_bytes: int
    inode: int


class SourceWatch:
    """Remembers the state of the files at the last look."""

    def __init__(self, directory: str, files: Sequence[str] = ()) -> None:
        """Hidden directories, virtual environments and installed packages are left out.

        Raises ValueError if there are more than FILES_MAX files.
        """
        self._directory = os.path.abspath(directory)
        self._files = [os.path.abspath(each) for each in files]
        self._stamps = dict(self._look())
        if len(self._stamps) > FILES_MAX:
            raise ValueError(
                f"{self._directory} has more than {FILES_MAX} Python files: name the directory of the application with "
                "--app-dir."
            )

    def changed(self) -> list[str]:
        """Files that were written, added or removed since the last look, relative to the directory."""
        before, self._stamps = self._stamps, dict(self._look())
        paths = sorted(
            path for path in before.keys() | self._stamps.keys() if before.get(path) != self._stamps.get(path)
        )
        for path in paths:
            _forget_bytecode(path)
        return [os.path.relpath(path, self._directory) for path in paths]

    def _look(self) -> Iterator[tuple[str, _Stamp]]:
        for path in (*self._files, *_python_files(self._directory)):
            with contextlib.suppress(OSError):  # it has just been removed
                found = os.stat(path)
                yield path, _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


def _python_files(directory: str) -> Iterator[str]:
    count = 0
    for here, directories, names in os.walk(directory):
        directories[:] = [
            each
            for each in directories
            if not each.startswith(".")
            and each not in _NOT_SOURCES
            and not os.path.exists(os.path.join(here, each, "pyvenv.cfg"))
        ]
        for name in names:
            if name.endswith(".py"):
                yield os.path.join(here, name)
                count += 1
                if count > FILES_MAX:
                    return


def _forget_bytecode(path: str) -> None:
    """Python takes the bytecode of a file for current if size and second are: not so of one written twice in one."""
    if path.endswith(".py") and sys.implementation.cache_tag:
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
