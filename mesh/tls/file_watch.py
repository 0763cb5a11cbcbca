"""`FileWatch`: reads files again when their contents have changed, and keeps what it has when the new ones are wrong.

One look every few seconds compares contents, not times: that also sees files which are replaced by a link, as in
Kubernetes. Looking blocks, so `run` does it in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

logger = logging.getLogger("mesh")

_READ_MAX_BYTES = 16 * 1024 * 1024


class FromFiles(Protocol):
    """Something that was made from files and can be made from them again. `reload` is called in a thread."""

    @property
    def name(self) -> str:
        """For logs and metrics, for instance "certificate of the gRPC port"."""

    @property
    def paths(self) -> tuple[str, ...]: ...

    def reload(self) -> None:
        """Take over what the files hold now. Raises ValueError or OSError, and is then as before."""


class FileWatch:
    """Watches any number of them. `look` is for one thread at a time."""

    def __init__(self) -> None:
        self._watched: list[tuple[FromFiles, bytes]] = []
        self.reloads: dict[str, int] = {}
        """By name: how often changed files were taken over."""
        self.refusals: dict[str, int] = {}
        """By name: how often they were wrong."""

    def __repr__(self) -> str:
        return f"<FileWatch of {', '.join(each.name for each, _ in self._watched) or 'nothing'}>"

    def add(self, made: FromFiles) -> None:
        """Load it, and watch its files from now on. Raises what its `reload` raises."""
        # Before the load: the next look then sees a change that comes meanwhile.
        seen = _digest(made.paths)
        made.reload()
        self._watched.append((made, seen))
        self.reloads[made.name] = self.refusals[made.name] = 0

    def look(self) -> None:
        """Reload what has changed. Contents that were wrong are tried again when they have changed again."""
        for index, (made, seen) in enumerate(self._watched):
            present = _digest(made.paths)
            if present == seen:
                continue
            self._watched[index] = made, present
            try:
                made.reload()
            except Exception as error:  # whatever it is, the next contents may be right
                self.refusals[made.name] += 1
                logger.error("the %s stays as it was: its new files are wrong. %s", made.name, error)
            else:
                self.reloads[made.name] += 1
                logger.info("the %s was reloaded from %s", made.name, ", ".join(made.paths))

    async def run(self, interval_s: float, in_thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Look every `interval_s` seconds until it is cancelled. `in_thread` runs a look where it may block."""
        while self._watched:
            await asyncio.sleep(interval_s)
            await in_thread(self.look)


def _digest(paths: tuple[str, ...]) -> bytes:
    """Digest of the contents; a file that cannot be read counts as different content."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode())
        try:
            with Path(path).open("rb") as file:
                content = file.read(_READ_MAX_BYTES)
            digest.update(b"\0%d\0%b" % (len(content), content))
        except OSError as error:
            digest.update(f"\1{error.errno}".encode())
    return digest.digest()
