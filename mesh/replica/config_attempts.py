"""The attempts to change the configuration of a running replica: one after the other, and the one that failed last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.wire.outcome import describe

_REJECTION_MAX_CHARS = 2000


class ConfigAttempts:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.rejected_version = ""
        """The configuration that the user's `reconfigure` refused last; empty once it has taken one over."""
        self.rejection = ""
        """What it raised."""

    @asynccontextmanager
    async def attempt(self, version: str) -> AsyncIterator[None]:
        """The attempt with the configuration of that version fails with what is raised inside."""
        # A controller repeats a call whose answer was lost, perhaps while the first one still runs.
        async with self._lock:
            try:
                yield
            except (Exception, SystemExit) as error:
                self.rejected_version = version
                self.rejection = describe(error)[:_REJECTION_MAX_CHARS]
                raise
            self.rejected_version = self.rejection = ""
