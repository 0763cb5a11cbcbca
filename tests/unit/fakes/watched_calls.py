"""All calls of handles that a test makes: how often each has ended, and whether one of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mesh.caller.call_future import CallFuture, ItemStream
from tests.unit.fakes.small_mesh import do_on_io, until


class Watch:
    """The futures of all calls of handles."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[CallFuture] = weakref.WeakSet()
        self.ends: list[int] = []
        """Of each future, by its number."""
        self.tasks = do_on_io(lambda: len(asyncio.all_tasks()))

    @property
    def made(self) -> int:
        return len(self.ends)

    def is_empty(self) -> bool:
        if self.alive:
            gc.collect()
        return not self.alive


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Count the ends of each call that a handle makes, and prove that no task of the I/O loop is left."""
    watch = Watch()

    def watched_kind(kind: type[Any]) -> type[Any]:
        class Watched(kind):  # type: ignore[misc]
            __slots__ = ("__weakref__", "number")

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                watch.alive.add(self)
                self.number = len(watch.ends)
                watch.ends.append(0)

            def on_done(self, outcome: Any) -> None:
                watch.ends[self.number] += 1
                super().on_done(outcome)

        return Watched

    with monkeypatch.context() as patch:
        # The records that pytest keeps have tracebacks, and these have responses.
        patch.setattr(logging.getLogger("mesh"), "disabled", True)
        for kind in (CallFuture, ItemStream):
            patch.setattr(f"mesh.caller.call_start.{kind.__name__}", watched_kind(kind))
        yield watch
    until(lambda: do_on_io(lambda: len(asyncio.all_tasks())) <= watch.tasks, "the end of every task of the I/O loop")
