"""The figures of the user's `record_autoscaling_stats`, read periodically for the autoscaling policy (item 155)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mesh.settings import settings

logger = logging.getLogger("mesh")

_IDLE_PERIOD_S = 10.0
_PERIOD_MIN_S = 0.05


class AutoscalingStats:
    """The latest figures of one replica."""

    def __init__(self, record: Callable[[], Coroutine[Any, Any, object]], interval_s: Callable[[], float]) -> None:
        """`interval_s` may change; 0: the figures are not needed at present."""
        self._record = record
        self._interval_s = interval_s
        self._failure = ""
        self.values: Mapping[str, float] = {}
        """Empty while the hook fails: old figures would mislead."""

    async def run(self) -> None:
        """Read the figures until cancelled."""
        while True:
            if self._interval_s() > 0:
                await self._ask()
            await asyncio.sleep(max(self._interval_s() or _IDLE_PERIOD_S, _PERIOD_MIN_S))

    async def _ask(self) -> None:
        timeout_s = settings().replica.autoscaling_stats_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                # In a task of its own: it may cancel the one it runs in.
                self.values = _checked(await asyncio.create_task(self._record(), name="record_autoscaling_stats"))
            failure = ""
        except TimeoutError:
            failure = f"no answer within {timeout_s:g} s"
        except (Exception, asyncio.CancelledError) as error:  # the user's code may raise anything
            if _is_cancelled():
                raise
            failure = f"{type(error).__name__}: {error}"
        if failure:
            self.values = {}
        if failure and failure != self._failure:
            logger.warning("record_autoscaling_stats failed: %s", failure)
        self._failure = failure


def _is_cancelled() -> bool:
    """Whether this task is cancelled, not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _checked(values: object) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise TypeError(f"it must return a dict of numbers by name, it returned {values!r}")
    for name, value in values.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"it must return a dict of numbers by name, it returned {name!r}: {value!r}")
    return {name: float(value) for name, value in values.items()}
