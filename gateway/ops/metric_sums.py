"""Owns the adding up of metrics of several processes: pure.

Samples of equal family and labels become one. Counters and histograms of processes that went away stay in the sum, so
that what Prometheus takes for a rate never falls; their gauges go with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from mesh.v1 import telemetry_pb2
from mesh.wire.telemetry import GAUGE, Family, Sample

Families = list[tuple[Family, list[Sample]]]

_DEPARTED_KEPT_APART_MAX = 64
_APPLICATION = "application"


class MetricSums:
    """Sums by family and label values."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[Family, dict[tuple[str, ...], Sample]]] = {}

    def add(self, families: Families, *, with_gauges: bool = True) -> None:
        """Add samples. A family whose shape differs from the one of that name that came first is left out."""
        for family, samples in families:
            if family.kind == GAUGE and not with_gauges:
                continue
            known, sums = self._families.setdefault(family.name, (family, {}))
            if (known.kind, known.label_names, known.bounds) != (family.kind, family.label_names, family.bounds):
                continue  # another version of the mesh: the two cannot be added up
            for sample in samples:
                _add_to(sums, sample)

    def keep_only(self, applications: Set[str]) -> None:
        """Forget the samples of other applications."""
        for family, sums in self._families.values():
            for label_values in [each for each in sums if not _is_of(family, each, applications)]:
                del sums[label_values]

    def families(self) -> Families:
        return [(family, list(sums.values())) for family, sums in self._families.values()]


class NodeSums:
    """Sums of all processes of a node, from what each of them last said."""

    def __init__(self) -> None:
        self._last: dict[str, Families] = {}
        self._departed: dict[str, Families] = {}
        self._retained = MetricSums()

    def update(self, own: Families, replies: Mapping[str, Families | None]) -> Families:
        """The node's metrics now. `replies` has every living process by id; None stands for one that did not answer."""
        for process_id in self._last.keys() - replies.keys():
            self._departed[process_id] = self._last.pop(process_id)
        for process_id in self._departed.keys() & replies.keys():
            # Seen again after its connection to the controller had broken: it still counts from where it was.
            self._last[process_id] = self._departed.pop(process_id)
        self._fold_oldest_departed()
        sums = MetricSums()
        sums.add(own)
        for process_id, families in replies.items():
            if families is not None:
                self._last[process_id] = families
            sums.add(self._last.get(process_id, []), with_gauges=families is not None)
        for families in self._departed.values():
            sums.add(families, with_gauges=False)
        sums.add(self._retained.families())
        return sums.families()

    def keep_only(self, applications: Set[str]) -> None:
        """What processes that went away have counted for other applications is forgotten."""
        for process_id, families in self._departed.items():
            self._departed[process_id] = [
                (family, [sample for sample in samples if _is_of(family, sample.label_values, applications)])
                for family, samples in families
            ]
        self._retained.keep_only(applications)

    def _fold_oldest_departed(self) -> None:
        while len(self._departed) > _DEPARTED_KEPT_APART_MAX:
            oldest = next(iter(self._departed))
            self._retained.add(self._departed.pop(oldest), with_gauges=False)


def read_reply(reply: telemetry_pb2.MetricsReply) -> Families:
    """What another process sent."""
    return [
        (
            Family(family.name, family.kind, family.help, tuple(family.label_names), tuple(family.bounds)),
            [
                Sample(tuple(sample.label_values), sample.value, list(sample.buckets), sample.sum)
                for sample in family.samples
            ],
        )
        for family in reply.families
    ]


def _is_of(family: Family, label_values: tuple[str, ...], applications: Set[str]) -> bool:
    """Whether a series is of one of the applications, or of none at all."""
    if _APPLICATION not in family.label_names:
        return True
    application = label_values[family.label_names.index(_APPLICATION)]
    return not application or application in applications


def _add_to(sums: dict[tuple[str, ...], Sample], sample: Sample) -> None:
    total = sums.get(sample.label_values)
    if total is None:
        sums[sample.label_values] = Sample(sample.label_values, sample.value, list(sample.buckets), sample.sum)
        return
    total.value += sample.value
    total.sum += sample.sum
    total.buckets = [mine + theirs for mine, theirs in zip(total.buckets, sample.buckets, strict=True)]
