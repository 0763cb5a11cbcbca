"""What hooks of the user's class record of a replica: `record_autoscaling_stats` and its siblings (item 155).

Autoscaling policies read the first, and request routers the other two. A hook that is read periodically fails alone:
the replica serves on, and its figures are empty until it answers again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from numbers import Real
from typing import Any

from mesh.usercode.user_failure import UserCodeError
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import as_utf8, describe

logger = logging.getLogger("mesh")

AUTOSCALING = "record_autoscaling_stats"
ROUTING = "record_routing_stats"
METADATA = "record_replica_metadata"

Values = Mapping[str, Any]

_IDLE_PERIOD_S = 10.0
"""Pause between two looks at a period that may change."""
_PERIOD_MIN_S = 0.05
"""Least pause between two calls of user code, whatever the deployment says."""
_VALUES_MAX_CHARS = 16 * 1024
_NESTING_MAX = 100
"""Nesting of JSON values. Callers cannot read all that Python can write, and their links would break."""


class RecordedStats:
    """The latest answer of one hook that is called periodically. I/O loop only."""

    def __init__(
        self,
        hook: str,
        record: Callable[[str], Coroutine[Any, Any, object]],
        *,
        interval_s: Callable[[], float],
        timeout_s: Callable[[], float],
        read: Callable[[object], Values],
        on_read: Callable[[Values], None] = lambda values: None,
    ) -> None:
        """`record` calls the hook, `read` checks its result; `interval_s` may change, 0: nothing is needed now."""
        self._hook = hook
        self._record = record
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._read = read
        self._on_read = on_read
        self._failure = ""
        self._task: asyncio.Task[None] | None = None
        self.values: Values = {}
        """Empty while the hook fails: old figures would mislead."""

    def begin(self) -> None:
        """Call the hook periodically, until `end`."""
        self._task = io_thread().spawn(self.run(), self._hook)

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Read the figures until cancelled."""
        while True:
            if self._interval_s() > 0:
                await self._ask()
                self._on_read(self.values)
            await self._pause()

    async def _pause(self) -> None:
        """Until it is due again. An interval that becomes shorter meanwhile holds soon."""
        passed_s = 0.0
        while (left_s := max(self._interval_s() or _IDLE_PERIOD_S, _PERIOD_MIN_S) - passed_s) > 0:
            await asyncio.sleep(min(left_s, _IDLE_PERIOD_S))
            passed_s += min(left_s, _IDLE_PERIOD_S)

    async def _ask(self) -> None:
        timeout_s = self._timeout_s()
        try:
            async with asyncio.timeout(timeout_s):
                # In a task of its own: it may cancel the one it runs in.
                self.values = self._read(await asyncio.create_task(self._answer(), name=self._hook))
            failure = ""
        except TimeoutError:
            failure = f"no answer within {timeout_s:g} s"
        except (Exception, asyncio.CancelledError) as error:  # the user's code may raise anything
            if _is_cancelled():
                raise
            failure = str(error) if isinstance(error, UserCodeError) else describe(error)
        if failure:
            self.values = {}
        if failure and failure != self._failure:
            logger.warning("%s failed: %s", self._hook, failure)
        self._failure = failure

    async def _answer(self) -> object:
        try:
            return await self._record(self._hook)
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit would leave the event loop, and all others end the task of `run`
            raise UserCodeError(describe(error)) from error


def routing_stats(
    record: Callable[[str], Coroutine[Any, Any, object]],
    options: Callable[[], control_pb2.DeploymentOptions],
    announce: Callable[[Values], None],
) -> RecordedStats:
    """Those for request routers; they are called as long as the deployment has one."""
    return RecordedStats(
        ROUTING,
        record,
        interval_s=lambda: options().request_router.stats_period_s,
        timeout_s=lambda: options().request_router.stats_timeout_s,
        read=json_values,
        on_read=announce,
    )


def numbers(values: object) -> dict[str, float]:
    """For autoscaling policies. Raises TypeError for anything but numbers by name."""
    if not isinstance(values, Mapping):
        raise TypeError(f"it must return a dict of numbers by name, it returned {values!r}")
    for name, value in values.items():
        # numpy's numbers too, of which most are neither int nor float.
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"it must return a dict of numbers by name, it returned {name!r}: {value!r}")
    return {as_utf8(name): float(value) for name, value in values.items()}


def json_values(values: object) -> dict[str, Any]:
    """For request routers, which get the values as JSON has them. Raises TypeError or ValueError for others."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise TypeError(f"it must return a dict of JSON values by name, it returned {values!r}")
    try:
        text = json.dumps(dict(values))
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"it must return a dict of JSON values by name: {error}") from error
    if len(text) > _VALUES_MAX_CHARS:
        raise ValueError(f"it returned {len(text)} characters of JSON; callers take {_VALUES_MAX_CHARS}")
    read: dict[str, Any] = json.loads(text)
    if _nesting(read) > _NESTING_MAX:
        raise ValueError(f"it returned values that are nested more than {_NESTING_MAX} deep, which callers do not take")
    return read


def _nesting(value: object) -> int:
    """How many lists and dicts of JSON stand in one another."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (list, dict))]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


async def metadata_of(record: Callable[[str], Coroutine[Any, Any, object]]) -> Values:
    """What the user's `record_replica_metadata` returns, asked once. Raises what it raises, and for wrong values."""
    try:
        return json_values(await record(METADATA))
    except (TypeError, ValueError) as error:
        error.add_note(f"in {METADATA}")
        raise


def _is_cancelled() -> bool:
    """Whether this task is cancelled, not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
