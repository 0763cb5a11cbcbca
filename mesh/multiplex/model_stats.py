"""The counts of multiplexed models, and their metrics."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mesh.context import in_replica
from mesh.usercode.shared_work import replica_labels
from mesh.wire import telemetry
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample

_LABELS = ("application", "deployment", "function_name")
_GETS = Family("mesh_multiplexed_get_model_requests_total", COUNTER, "Models asked for.", _LABELS)
_LOADS = Family("mesh_multiplexed_models_load_total", COUNTER, "Loads begun.", _LABELS)
_FAILURES = Family("mesh_multiplexed_models_load_failed_total", COUNTER, "Loads that raised or were stopped.", _LABELS)
_UNLOADS = Family("mesh_multiplexed_models_unload_total", COUNTER, "Models unloaded.", _LABELS)
_LOAD_TIME = Family(
    "mesh_multiplexed_model_load_latency_seconds", HISTOGRAM, "Time in the loader.", _LABELS, LATENCY_BOUNDS
)
_UNLOAD_TIME = Family(
    "mesh_multiplexed_model_unload_latency_seconds", HISTOGRAM, "Time in a model's __del__.", _LABELS, LATENCY_BOUNDS
)
_BYTES = Family("mesh_multiplexed_model_bytes", GAUGE, "Size of the models loaded now, by model_size_fn.", _LABELS)
_RESIDENT = Family("mesh_num_multiplexed_models", GAUGE, "Models loaded now.", _LABELS)


class ModelStats:
    """Figures of one multiplexed loader, over all its objects. One thread writes, the scrape reads."""

    def __init__(
        self, function_name: str, resident_models: Callable[[], int], resident_bytes: Callable[[], int]
    ) -> None:
        self.gets = 0
        self._function_name = function_name
        self._resident_models = resident_models
        self._resident_bytes = resident_bytes
        self._loads = 0
        self._load_failures = 0
        self._unloads = 0
        self._load_times = HistogramCounts()
        self._unload_times = HistogramCounts()
        _all_stats.add(self)

    @contextmanager
    def timed_load(self) -> Iterator[None]:
        """Count a load, and as failed what raises."""
        began_at_s = time.perf_counter()
        self._loads += 1
        try:
            yield
        except BaseException:
            self._load_failures += 1
            raise
        finally:
            self._load_times.observe(time.perf_counter() - began_at_s)

    @contextmanager
    def timed_unload(self) -> Iterator[None]:
        """Count an unload."""
        began_at_s = time.perf_counter()
        self._unloads += 1
        try:
            yield
        finally:
            self._unload_times.observe(time.perf_counter() - began_at_s)

    def samples(self) -> Iterator[tuple[Family, list[Sample]]]:
        if not in_replica() and not self.gets:
            return  # a process that only imported the code says nothing about it
        labels = (*replica_labels(), self._function_name)
        yield _GETS, [Sample(labels, self.gets)]
        yield _LOADS, [Sample(labels, self._loads)]
        yield _FAILURES, [Sample(labels, self._load_failures)]
        yield _UNLOADS, [Sample(labels, self._unloads)]
        yield _LOAD_TIME, [self._load_times.sample(labels)]
        yield _UNLOAD_TIME, [self._unload_times.sample(labels)]
        yield _BYTES, [Sample(labels, self._resident_bytes())]
        yield _RESIDENT, [Sample(labels, self._resident_models())]


_all_stats: weakref.WeakSet[ModelStats] = weakref.WeakSet()


def _collect() -> Iterator[tuple[Family, list[Sample]]]:
    for stats in list(_all_stats):
        yield from stats.samples()


telemetry.register(_collect)
