"""The counts of batched functions, and their metrics."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

from mesh.context import in_replica
from mesh.usercode.shared_work import replica_labels
from mesh.wire import telemetry
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Upper bounds in callers per batch."""

_LABELS = ("application", "deployment", "function_name")
_BATCHES = Family("mesh_batches_processed_total", COUNTER, "Batches that ended, well or not.", _LABELS)
_SIZE = Family("mesh_actual_batch_size", HISTOGRAM, "Callers per batch.", _LABELS, SIZE_BOUNDS)
_WAIT = Family("mesh_batch_wait_time_seconds", HISTOGRAM, "A caller's wait for its batch.", _LABELS, LATENCY_BOUNDS)
_EXECUTION = Family("mesh_batch_execution_time_seconds", HISTOGRAM, "Time in user code.", _LABELS, LATENCY_BOUNDS)
_QUEUE = Family("mesh_batch_queue_length", GAUGE, "Callers waiting for a batch.", _LABELS)


class BatchStats:
    """Figures of one batched function, over all its objects."""

    def __init__(self, function_name: str, queue_length: Callable[[], int]) -> None:
        self._function_name = function_name
        self._queue_length = queue_length
        self._batches = 0
        self._sizes = HistogramCounts(SIZE_BOUNDS)
        self._waits = HistogramCounts()
        self._executions = HistogramCounts()
        _all_stats.add(self)

    def batch_started(self, waits_s: Sequence[float]) -> None:
        self._sizes.observe(len(waits_s))
        for wait_s in waits_s:
            self._waits.observe(wait_s)

    def batch_ended(self, execution_s: float) -> None:
        self._batches += 1
        self._executions.observe(execution_s)

    def samples(self) -> Iterator[tuple[Family, list[Sample]]]:
        if not in_replica() and not any(self._sizes.buckets) and not self._queue_length():
            return  # a process that only imported the code says nothing about it
        labels = (*replica_labels(), self._function_name)
        yield _BATCHES, [Sample(labels, self._batches)]
        yield _SIZE, [self._sizes.sample(labels)]
        yield _WAIT, [self._waits.sample(labels)]
        yield _EXECUTION, [self._executions.sample(labels)]
        yield _QUEUE, [Sample(labels, self._queue_length())]


_all_stats: weakref.WeakSet[BatchStats] = weakref.WeakSet()


def _collect() -> Iterator[tuple[Family, list[Sample]]]:
    for stats in list(_all_stats):
        yield from stats.samples()


telemetry.register(_collect)
