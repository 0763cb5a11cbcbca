"""Metrics of user code, on the same scrape as those of the mesh: `/-/metrics` of each gateway.

    answers = mesh.metrics.Counter("answers", "Answers by kind.", tag_keys=("kind",))
    answers.inc(tags={"kind": "cached"})

Inside a replica each series also has the tags `application`, `deployment` and `replica`; a tag key `route` that is left
out is the route of the request being served. Metrics of one name are one metric, wherever in a process they are made.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from mesh.context import ReplicaContext, current_request, get_replica_context, in_replica, local_replica
from mesh.options import option_checks
from mesh.settings import settings
from mesh.v1 import telemetry_pb2
from mesh.wire import telemetry
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample

__all__ = ["Counter", "Gauge", "Histogram"]

logger = logging.getLogger("mesh")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_TAG_KEY = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_OWN_PREFIXES = ("mesh_", "grpc_")
_REPLICA_KEYS = ("application", "deployment", "replica")
_ROUTE = "route"
_SUFFIXES = {COUNTER: ("_total",), GAUGE: ("",), HISTOGRAM: ("_bucket", "_count", "_sum")}
"""What scrapes add to the name of a metric for its series, by its kind."""


class _Metric:
    """What the three kinds share. May be used from any thread and event loop, pickled, and made again."""

    _kind: telemetry_pb2.MetricKind

    def __init__(
        self, name: str, description: str = "", tag_keys: Sequence[str] | None = None, *, bounds: tuple[float, ...] = ()
    ) -> None:
        keys = _checked_keys(tag_keys or ())
        self._series = _declare(Family(_checked_name(name), self._kind, _checked_text(description), keys, bounds))
        self._default_tags: dict[str, str] = {}

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, tag keys and default tags."""
        family = self._series.family
        return {
            "name": family.name,
            "description": family.help,
            "tag_keys": family.label_names,
            "default_tags": dict(self._default_tags),
        }

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Self:
        """Values of tags that a call leaves out. Returns the metric itself.

        Raises ValueError for an unknown key, TypeError for a wrong value.
        """
        self._check(default_tags)
        self._default_tags = dict(default_tags)
        return self

    def __reduce__(self) -> tuple[Callable[..., _Metric], tuple[Any, ...]]:
        return _made_again, (type(self), self._series.family, self._default_tags)

    def _values_of(self, tags: Mapping[str, str] | None) -> tuple[str, ...]:
        """Values in the order of the keys. Raises ValueError if one is missing, or for one that is unknown."""
        keys = self._series.family.label_names
        if not keys and not tags:
            return ()
        if tags:
            self._check(tags)
        given = {**self._default_tags, **(tags or {})}
        if _ROUTE in keys and _ROUTE not in given:
            request = current_request()
            given[_ROUTE] = request.route if request is not None else ""
        missing = [key for key in keys if key not in given]
        if missing:
            raise ValueError(
                f"Missing value for tag key(s): {', '.join(missing)}. Give them in `tags`, or once by "
                f"{self._series.family.name}.set_default_tags."
            )
        return tuple(given[key] for key in keys)

    def _check(self, tags: Mapping[str, str]) -> None:
        if not isinstance(tags, Mapping):
            raise TypeError(f"tags must be a mapping of tag keys to their values, got {tags!r}.")
        keys = self._series.family.label_names
        for key, value in tags.items():
            if key not in keys:
                _refuse_reserved(key)
                raise ValueError(f"Unrecognized tag key {key!r}. Name it in tag_keys, which are {list(keys)}.")
            option_checks.name_text(f"tags[{key!r}]", value)


class Counter(_Metric):
    """A number that only grows; scrapes show it with the suffix `_total`."""

    _kind = COUNTER

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        """Raises ValueError for names that Prometheus or the mesh does not allow."""
        super().__init__(name.removesuffix("_total") if isinstance(name, str) else name, description, tag_keys)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add `value`, more than 0. Raises ValueError otherwise, and for missing or unknown tags."""
        amount = option_checks.number("value", value, may_equal=False)
        self._series.change(self._values_of(tags), lambda before: (before or 0.0) + amount)


class Gauge(_Metric):
    """A number that goes up and down. Processes of one node that share all tags are added up."""

    _kind = GAUGE

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        """Raises ValueError for names that Prometheus or the mesh does not allow."""
        super().__init__(name, description, tag_keys)

    def set(self, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        """Make it `value`; None changes nothing. Raises TypeError for no number, ValueError for wrong tags."""
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"value must be a number, got {value!r}.")
        now = float(value)
        self._series.change(self._values_of(tags), lambda _: now)


class Histogram(_Metric):
    """How often observed values fell between boundaries."""

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        """`boundaries`: upper bounds, more than 0 and ascending; None: those for latencies in seconds.

        Raises ValueError for other boundaries, and for names that Prometheus or the mesh does not allow.
        """
        super().__init__(name, description, tag_keys, bounds=_checked_bounds(boundaries))

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count one value. Raises TypeError for no number, ValueError for missing or unknown tags."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"value must be a number, got {value!r}.")
        self._series.observe(self._values_of(tags), float(value))


# ---- Series of this process ------------------------------------------------------------------------------------------


_Key = tuple[tuple[str, ...], tuple[str, ...]]
"""The values of its tags, and the tags of the local replica that it is of."""
_NO_REPLICA = ("", "", "")


@dataclass(slots=True)
class _Series:
    """The numbers of one metric."""

    family: Family
    numbers: dict[_Key, float] = field(default_factory=dict)
    histograms: dict[_Key, HistogramCounts] = field(default_factory=dict)
    is_full: bool = False

    def change(self, values: tuple[str, ...], change: Callable[[float | None], float]) -> None:
        key = values, _local_tags()
        with _lock:
            is_kept = key in self.numbers or self._may_add()
            if is_kept:
                self.numbers[key] = change(self.numbers.get(key))
        if not is_kept:
            self._say_full()

    def observe(self, values: tuple[str, ...], value: float) -> None:
        key = values, _local_tags()
        with _lock:
            counts = self.histograms.get(key)
            if counts is None and self._may_add():
                counts = self.histograms[key] = HistogramCounts(self.family.bounds)
            if counts is not None:
                counts.observe(value)
        if counts is None:
            self._say_full()

    def collect(self, own: tuple[str, ...]) -> tuple[Family, list[Sample]]:
        """`own`: the tags of this process if it is one replica. One for which user code has a key is the user's."""
        family = self.family
        is_tagged = bool(own) or any(local for _, local in (*self.numbers, *self.histograms))
        places = [place for place, key in enumerate(_REPLICA_KEYS) if is_tagged and key not in family.label_names]

        def tags(key: _Key) -> tuple[str, ...]:
            values, local = key
            added = local or own or _NO_REPLICA
            return (*values, *(added[place] for place in places))

        numbers = [Sample(tags(key), number) for key, number in list(self.numbers.items())]
        histograms = [counts.sample(tags(key)) for key, counts in list(self.histograms.items())]
        names = (*family.label_names, *(_REPLICA_KEYS[place] for place in places))
        return Family(family.name, family.kind, family.help, names, family.bounds), numbers + histograms

    def _may_add(self) -> bool:
        """Whether there is room for one more series. No series ever goes."""
        if self.is_full:
            return False
        known = sum(len(each.numbers) + len(each.histograms) for each in _metrics.values())
        return known < settings().process.user_metric_series_max

    def _say_full(self) -> None:
        """Log it the first time. Outside of the lock: a handler of logs may count what it gets."""
        if not self.is_full:
            self.is_full = True
            logger.warning(
                "user metric %s gets no more series: this process has %d (MESH_USER_METRIC_SERIES_MAX). Use tags that "
                "have few values",
                self.family.name,
                settings().process.user_metric_series_max,
            )


_lock = threading.RLock()
"""A thread that holds it may come again: in a `__del__` that the garbage collector runs, or in a signal handler."""
_metrics: dict[str, _Series] = {}


def _declare(family: Family) -> _Series:
    limit = settings().process.user_metric_series_max
    with _lock:
        if family.name not in _metrics:
            if len(_metrics) >= limit:
                raise ValueError(
                    f"This process has {limit} metrics already (MESH_USER_METRIC_SERIES_MAX). Use tags instead."
                )
            _refuse_shared_names(family)
        series = _metrics.setdefault(family.name, _Series(family))
    known = series.family
    if (known.kind, known.label_names, known.bounds) != (family.kind, family.label_names, family.bounds):
        raise ValueError(
            f"There is a metric {family.name!r} with another kind, other tag keys or other boundaries. Use another "
            "name."
        )
    if family.kind == COUNTER and not family.label_names:
        series.change((), lambda before: before or 0.0)
    return series


def _refuse_shared_names(family: Family) -> None:
    """Prometheus would take the series of two metrics for one, as of a counter `sold` and a gauge `sold_total`."""
    names = _names_of_series(family)
    for other in _metrics.values():
        shared = names & _names_of_series(other.family)
        if shared:
            raise ValueError(
                f"The series of {family.name!r} and of the metric {other.family.name!r} would both be called "
                f"{min(shared)!r}. Use another name."
            )


def _names_of_series(family: Family) -> set[str]:
    return {family.name + suffix for suffix in _SUFFIXES[family.kind]}


def _made_again(cls: type[_Metric], family: Family, default_tags: dict[str, str]) -> _Metric:
    made = cls.__new__(cls)
    made._series = _declare(family)
    made._default_tags = default_tags
    return made


def _collect() -> list[tuple[Family, list[Sample]]]:
    """The telemetry source."""
    own = _tags_of(get_replica_context()) if in_replica() else ()
    with _lock:
        return [series.collect(own) for series in list(_metrics.values())]


def _local_tags() -> tuple[str, ...]:
    """Tags that name the replica that runs this code, if it is one of several in this process; else empty."""
    replica = local_replica()
    return () if replica is None else _tags_of(replica)


def _tags_of(replica: ReplicaContext) -> tuple[str, ...]:
    return replica.app_name, replica.deployment, replica.replica_tag


telemetry.register(_collect)


# ---- Checks ----------------------------------------------------------------------------------------------------------


def _checked_name(name: object) -> str:
    name = option_checks.text("name", name)
    if not _NAME.fullmatch(name) or name.startswith(_OWN_PREFIXES):
        raise ValueError(
            f"A metric cannot be called {name!r}: use letters, digits and underscores, and another start than "
            f"{' or '.join(_OWN_PREFIXES)}."
        )
    return name


def _checked_text(description: object) -> str:
    return option_checks.name_text("description", description)


def _checked_keys(tag_keys: object) -> tuple[str, ...]:
    if isinstance(tag_keys, str) or not isinstance(tag_keys, Sequence):
        raise TypeError(f"tag_keys must be a tuple of strings, got {tag_keys!r}.")
    for key in tag_keys:
        if not _TAG_KEY.fullmatch(option_checks.text("tag_keys", key)) or key == "le":
            raise ValueError(f"A tag key cannot be {key!r}: use letters, digits and underscores, and not 'le'.")
        _refuse_reserved(key)
    if len(set(tag_keys)) < len(tag_keys):
        raise ValueError(f"tag_keys must differ from each other, got {list(tag_keys)}.")
    return tuple(tag_keys)


def _refuse_reserved(key: str) -> None:
    if key in _REPLICA_KEYS and in_replica():
        raise ValueError(f"The {key!r} tag is reserved: every metric of a replica has it. Leave it out.")


def _checked_bounds(boundaries: Sequence[float] | None) -> tuple[float, ...]:
    if boundaries is None:
        return LATENCY_BOUNDS
    bounds = tuple(option_checks.number("boundaries", each, may_equal=False) for each in boundaries)
    if not bounds or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"boundaries must be ascending and at least one, got {list(boundaries)}.")
    return bounds
