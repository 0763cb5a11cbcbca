"""An event loop whose turns a test takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast


class TurningLoop:
    """Runs what was asked of it when the test says so."""

    def __init__(self) -> None:
        self._due: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.delays_s: list[float] = []

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._due.append((callback, arguments))

    def call_later(self, delay_s: float, callback: Callable[..., None]) -> None:
        self.delays_s.append(delay_s)
        self._due.append((callback, ()))

    def turn(self) -> None:
        due, self._due = self._due, []
        for callback, arguments in due:
            callback(*arguments)

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)
