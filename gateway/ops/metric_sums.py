"""Sums of the metrics of several processes. Pure.

Samples of equal family and labels become one. Counters and histograms of processes that have ended stay in the sum,
because Prometheus takes a falling counter for a restart; their gauges are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from mesh.v1 import telemetry_pb2
from mesh.wire.telemetry import GAUGE, Family, Sample

Families = list[tuple[Family, list[Sample]]]

_DEPARTED_KEPT_APART_MAX = 64
"""Ended processes whose counts are kept apart, as they may come back; those of older ones are added up."""
_OWNERS_NAMED_MAX = 5
_APPLICATION = "application"
_REPLICA = "replica"


class MetricSums:
    """Sums by family and label values."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[Family, dict[tuple[str, ...], Sample]]] = {}
        self.clashes: dict[str, str] = {}
        """What was left out, by the name of the family: a sentence."""

    def add(self, families: Families, *, with_gauges: bool = True) -> None:
        """Add samples. A family is left out if its shape differs from the first one of that name."""
        for family, samples in families:
            if family.kind == GAUGE and not with_gauges:
                continue
            known, sums = self._families.setdefault(family.name, (family, {}))
            if (known.kind, known.label_names, known.bounds) != (family.kind, family.label_names, family.bounds):
                self._note_clash(known, family, samples)
                continue
            for sample in samples:
                _add_to(sums, sample)

    def keep_only(self, applications: Set[str]) -> None:
        """Remove the samples of all other applications."""
        for family, sums in self._families.values():
            for label_values in [each for each in sums if not _is_of(family, each, applications)]:
                del sums[label_values]

    def families(self) -> Families:
        return [(family, list(sums.values())) for family, sums in self._families.values()]

    def _note_clash(self, known: Family, family: Family, samples: list[Sample]) -> None:
        if samples and family.name not in self.clashes:
            owners = sorted({owner for each in samples if (owner := _application_of(family, each.label_values))})
            of = f" of application {', '.join(owners[:_OWNERS_NAMED_MAX])}" if owners else ""
            self.clashes[family.name] = f"{_shape(family)}{of} is left out, as another one is {_shape(known)}"


class NodeSums:
    """Sums of all processes of a node, from the last reply of each."""

    def __init__(self) -> None:
        self._last: dict[str, Families] = {}
        self._departed: dict[str, Families] = {}
        self._retained = MetricSums()
        self.clashes: dict[str, str] = {}
        """The clashes of the last update, see `MetricSums`."""

    def update(self, own: Families, replies: Mapping[str, Families | None]) -> Families:
        """The node's metrics. `replies`: every living process by its id, with None for one that did not answer."""
        for process_id in self._last.keys() - replies.keys():
            self._departed[process_id] = self._last.pop(process_id)
        for process_id in self._departed.keys() & replies.keys():
            # Its connection to the controller had broken, and it is back: its counters went on.
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
        self.clashes = sums.clashes
        return sums.families()

    def keep_only(self, applications: Set[str]) -> None:
        """Remove what ended processes have counted for all other applications."""
        for process_id, families in self._departed.items():
            self._departed[process_id] = [
                (family, [sample for sample in samples if _is_of(family, sample.label_values, applications)])
                for family, samples in families
            ]
        self._retained.keep_only(applications)

    def _fold_oldest_departed(self) -> None:
        while len(self._departed) > _DEPARTED_KEPT_APART_MAX:
            oldest = next(iter(self._departed))
            families = self._departed.pop(oldest)
            # Series of one replica do not grow any more, and would be kept for each replica that ever was.
            shared = [each for each in families if _REPLICA not in each[0].label_names]
            self._retained.add(shared, with_gauges=False)


def read_reply(reply: telemetry_pb2.MetricsReply) -> Families:
    """Families and samples from the reply of another process."""
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
    """Whether a series belongs to one of the applications, or to no application."""
    application = _application_of(family, label_values)
    return not application or application in applications


def _application_of(family: Family, label_values: tuple[str, ...]) -> str:
    """Empty where a series is of none."""
    return label_values[family.label_names.index(_APPLICATION)] if _APPLICATION in family.label_names else ""


def _shape(family: Family) -> str:
    bounds = f" and boundaries {', '.join(map(str, family.bounds))}" if family.bounds else ""
    kind = telemetry_pb2.MetricKind.Name(family.kind).removeprefix("METRIC_KIND_").lower()
    return f"a {kind} with tags {', '.join(family.label_names) or 'none'}{bounds}"


def _add_to(sums: dict[tuple[str, ...], Sample], sample: Sample) -> None:
    total = sums.get(sample.label_values)
    if total is None:
        sums[sample.label_values] = Sample(sample.label_values, sample.value, list(sample.buckets), sample.sum)
        return
    total.value += sample.value
    total.sum += sample.sum
    total.buckets = [mine + theirs for mine, theirs in zip(total.buckets, sample.buckets, strict=True)]
