"""The queue of one batched function on one event loop: which callers run together, and when.

There is no task that loops over the queue and could die or outlive it. Four events move the queue: a caller comes, a
caller leaves, a timer fires, a batch ends. Each of them ends in `_consider`, a synchronous look at the whole queue that
starts every batch that may start and sets the timer for the next one. While no caller waits and nothing runs, the
queue is only a small object.

Callers wait in lanes, one per multiplexed model id, since a batch has one model. A lane may start when a full batch
waits in it, or when its wait is over; the wait begins with the first caller, but not before a slot is free.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

from mesh.batching.batch_call import AnyMember, deliverable
from mesh.batching.batch_stats import BatchStats
from mesh.usercode.shared_work import shared_context

SizeFunction: TypeAlias = Callable[[list[Any]], int]

TIMER_GRAIN_S = 0.001
"""Event loops fire timers up to this much early."""


@dataclass(slots=True, kw_only=True)
class BatchOptions:
    """Options of one batched function. The first two may change while it runs."""

    max_batch_size: int
    """Callers per batch, or the most that `batch_size_fn` may return for a batch."""
    batch_wait_timeout_s: float
    """How long the first caller of a batch waits for others."""
    max_concurrent_batches: int
    """Batches that may run at the same time, for each object and event loop."""
    batch_size_fn: SizeFunction | None = None
    """Measures a list of items; None counts them."""


class Lane:
    """Callers with the same model id, in order of arrival."""

    def __init__(self, options: BatchOptions) -> None:
        self.calls: dict[AnyMember, None] = {}
        self.due_at_s: float | None = None
        """Loop time when the wait is over; None while it has not begun."""
        self.is_full = False
        self._options = options
        self._fitting = 0

    def add(self, call: AnyMember) -> None:
        """Append the call. One too large for any batch is a RuntimeError; errors of `batch_size_fn` pass through."""
        if self._options.batch_size_fn is not None:
            self._measure_with(call, self._options.batch_size_fn)
        self.calls[call] = None
        if self._options.batch_size_fn is None:
            self._count()

    def remove(self, call: AnyMember) -> None:
        """Drop a queued call. Measure afterwards."""
        del self.calls[call]

    def take(self) -> list[AnyMember]:
        """The calls of the next batch, removed from the lane. Measure afterwards."""
        batch = list(islice(self.calls, self._fitting))
        for call in batch:
            del self.calls[call]
        self.due_at_s = None
        return batch

    def measure(self) -> None:
        """Find again how many calls from the front fit into one batch.

        An error of `batch_size_fn` goes to every waiting caller: it cannot be known which of them may run.
        """
        if self._options.batch_size_fn is None:
            self._count()
            return
        calls = list(self.calls)
        self.is_full, self._fitting = False, 0
        try:
            while not self.is_full and self._fitting < len(calls):
                self._extend(calls[: self._fitting + 1], self._options.batch_size_fn)
        except BaseException as error:
            self.calls.clear()
            _fail(calls, error)

    def _count(self) -> None:
        self._fitting = min(len(self.calls), self._options.max_batch_size)
        self.is_full = len(self.calls) >= self._options.max_batch_size

    def _extend(self, calls: Sequence[AnyMember], size_fn: SizeFunction) -> None:
        """Let these calls, from the front of the lane, be the batch, unless they are too large together."""
        size = _size_of(calls, size_fn)
        # The first always fits: it was measured alone when it came, and the limit may have been lowered since.
        if size <= self._options.max_batch_size or len(calls) == 1:
            self._fitting = len(calls)
        # Written so that NaN is full too: `measure` goes on until it is.
        self.is_full = not size < self._options.max_batch_size

    def _measure_with(self, call: AnyMember, size_fn: SizeFunction) -> None:
        try:
            self._check_alone(call, size_fn)
            if not self.is_full:
                self._extend([*self.calls, call], size_fn)
        except BaseException as error:  # not SystemExit, which would end the loop of the caller
            told = deliverable(error)
            if told is error:
                raise
            raise told from error

    def _check_alone(self, call: AnyMember, size_fn: SizeFunction) -> None:
        size = _size_of([call], size_fn)
        if not size <= self._options.max_batch_size:
            raise RuntimeError(
                f"One item has size {size:.15g}, more than max_batch_size={self._options.max_batch_size}. "
                "Split the item or raise max_batch_size."
            )


@dataclass(eq=False, slots=True)
class RunningBatch:
    """A batch in execution and the callers that still wait for it."""

    calls: list[AnyMember]
    waiting: set[AnyMember] = field(init=False)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.waiting = set(self.calls)


class BatchQueue:
    """Turns calls into batches and runs them. Every method is for the thread of its event loop."""

    def __init__(
        self,
        options: BatchOptions,
        stats: BatchStats,
        execute: Callable[[Sequence[AnyMember]], Coroutine[Any, Any, None]],
    ) -> None:
        self._options = options
        self._stats = stats
        self._execute = execute
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}
        self._measured_for = options.max_batch_size
        """The limit for which the lanes are measured; the options may have another one by now."""
        self._running: dict[AnyMember, RunningBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._timer_due_at_s = math.inf

    def __repr__(self) -> str:
        return f"<BatchQueue waiting={len(self)} running={len(self._tasks)}>"

    def __len__(self) -> int:
        return sum(len(lane.calls) for lane in list(self._lanes.values()))

    def add(self, call: AnyMember) -> None:
        """Queue the call; its outlet gets the outcome. Every added call must be taken out by `leave` in the end."""
        lane = self._lanes.get(call.model_id) or Lane(self._options)
        lane.add(call)
        self._lanes[call.model_id] = lane
        # Only a full batch starts immediately. Even a wait of zero goes through the timer, that is once round the loop,
        # so that callers that were started together meet in one batch.
        self._consider(is_wait_checked=False)

    def leave(self, call: AnyMember) -> None:
        """The caller stopped waiting: drop it if it is queued; cancel its batch if no other caller waits for it."""
        lane = self._lanes.get(call.model_id)
        if lane is not None and call in lane.calls:
            lane.remove(call)
            self._measure(lane, call.model_id)
            return
        batch = self._running.pop(call, None)
        if batch is None:
            return
        batch.waiting.discard(call)
        if not batch.waiting and not call.outlet.is_finished and batch.task is not None:
            batch.task.cancel()

    def options_changed(self) -> None:
        """Look again at everything that waits; a new wait begins."""
        for lane in self._lanes.values():
            lane.due_at_s = None
        self._stop_timer()
        self._consider(is_wait_checked=False)

    def _consider(self, *, is_wait_checked: bool) -> None:
        while len(self._tasks) < self._options.max_concurrent_batches:
            self._measure_if_changed()
            if not self._lanes:
                return
            now_s = self._loop.time()
            self._begin_waits(now_s)
            startable = [
                (lane.due_at_s, model_id)
                for model_id, lane in self._lanes.items()
                if lane.is_full or (is_wait_checked and _due_at_s(lane) <= now_s + TIMER_GRAIN_S)
            ]
            if not startable:
                self._set_timer(min(map(_due_at_s, self._lanes.values())))
                return
            _, model_id = min(startable)
            lane = self._lanes[model_id]
            self._start(lane.take())
            self._measure(lane, model_id)

    def _begin_waits(self, now_s: float) -> None:
        for lane in self._lanes.values():
            if lane.due_at_s is None:
                lane.due_at_s = now_s + self._options.batch_wait_timeout_s

    def _measure_if_changed(self) -> None:
        """Here and not in `options_changed`, which comes later than the change: no batch begins that is too large."""
        if self._measured_for == self._options.max_batch_size:
            return
        self._measured_for = self._options.max_batch_size
        for model_id, lane in list(self._lanes.items()):
            self._measure(lane, model_id)

    def _measure(self, lane: Lane, model_id: str) -> None:
        lane.measure()
        if not lane.calls:
            del self._lanes[model_id]

    def _start(self, calls: list[AnyMember]) -> None:
        batch = RunningBatch(calls)
        for call in calls:
            self._running[call] = batch
        context = shared_context(calls[0].context)
        batch.task = self._loop.create_task(self._run(batch), name="batch", context=context)
        self._tasks.add(batch.task)
        batch.task.add_done_callback(functools.partial(self._on_done, batch))

    async def _run(self, batch: RunningBatch) -> None:
        started_at_s = self._loop.time()
        self._stats.batch_started([started_at_s - call.enqueued_s for call in batch.calls])
        try:
            await self._execute(batch.calls)
        except BaseException as error:
            # A cancellation too. It goes no further: SystemExit would end this loop, and all calls on it.
            _fail(batch.calls, error)
        finally:
            self._stats.batch_ended(self._loop.time() - started_at_s)

    def _on_done(self, batch: RunningBatch, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # from outside and before its first step, so that no line of `_run` has run
            _fail(batch.calls, asyncio.CancelledError())
        self._consider(is_wait_checked=True)

    def _set_timer(self, due_at_s: float) -> None:
        # The handle's own `when` does not help: uvloop answers a time that has come with a handle that has none.
        if due_at_s < self._timer_due_at_s:
            self._stop_timer()
            self._timer = self._loop.call_at(due_at_s, self._on_timer)
            self._timer_due_at_s = due_at_s

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due_at_s = None, math.inf

    def _on_timer(self) -> None:
        self._timer, self._timer_due_at_s = None, math.inf
        self._consider(is_wait_checked=True)


def _size_of(calls: Sequence[AnyMember], size_fn: SizeFunction) -> float:
    size = size_fn([call.size_item for call in calls])
    try:
        return float(size)
    except (TypeError, ValueError):
        raise TypeError(f"batch_size_fn must return a number, got {size!r}.") from None


def _fail(calls: Sequence[AnyMember], error: BaseException) -> None:
    """Give the error to those that have no outcome yet."""
    for call in calls:
        call.outlet.fail(error)


def _due_at_s(lane: Lane) -> float:
    return math.inf if lane.due_at_s is None else lane.due_at_s
