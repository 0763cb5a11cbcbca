"""Adding up the metrics of a node's processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.ops.metric_sums import Families, NodeSums
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, Family, Sample

CALLS = Family("calls_total", COUNTER, "Calls.", ("app",))
BUSY = Family("busy", GAUGE, "Busy.", ("app",))
TIME = Family("time_seconds", HISTOGRAM, "Time.", ("app",), (1.0, 2.0))


def metrics_of(calls: float = 0, busy: float = 0, app: str = "a") -> Families:
    """The metrics of one process."""
    return [
        (CALLS, [Sample((app,), calls)]),
        (BUSY, [Sample((app,), busy)]),
        (TIME, [Sample((app,), buckets=[int(calls), 0, 1], sum=calls)]),
    ]


def value(families: Families, family: Family, app: str = "a") -> float:
    return sum(s.value for f, samples in families if f == family for s in samples if s.label_values == (app,))


def test_samples_with_equal_labels_become_one():
    families = NodeSums().update(metrics_of(1, 5), {"p": metrics_of(2, 6), "q": metrics_of(3, 7, app="b")})
    assert (value(families, CALLS), value(families, BUSY)) == (3, 11)
    assert value(families, CALLS, "b") == 3
    assert sum(len(samples) for _, samples in families) == 6


def test_histograms_add_up_bucket_by_bucket():
    families = NodeSums().update(metrics_of(1), {"p": metrics_of(2)})
    (sample,) = next(samples for family, samples in families if family == TIME)
    assert (sample.buckets, sample.sum) == ([3, 0, 2], 3)


def test_metrics_of_one_name_and_different_tags_are_named():
    """The first one is shown; the sentence says whose the other is (item 252)."""
    sums = NodeSums()
    other = Family("calls_total", COUNTER, "Calls.", ("application", "kind"))
    families = sums.update(metrics_of(1), {"p": [(other, [Sample(("shop", "x"), 5), Sample(("zoo", "x"), 5)])]})
    assert [family for family, _ in families if family.name == CALLS.name] == [CALLS]
    said = "a counter with tags application, kind of application shop, zoo is left out, as another one is a counter"
    assert sums.clashes == {"calls_total": f"{said} with tags app"}
    sums.update(metrics_of(1), {"p": metrics_of(1)})
    assert not sums.clashes


def test_own_samples_with_equal_labels_add_up_too():
    own: Families = [(CALLS, [Sample(("a",), 1), Sample(("a",), 2)])]
    assert value(NodeSums().update(own, {}), CALLS) == 3


def test_a_process_that_ended_keeps_its_counts_and_loses_its_gauges():
    sums = NodeSums()
    sums.update([], {"p": metrics_of(2, 6)})
    families = sums.update(metrics_of(1, 1), {})
    assert (value(families, CALLS), value(families, BUSY)) == (3, 1)


def test_a_process_that_does_not_answer_keeps_its_counts():
    sums = NodeSums()
    sums.update([], {"p": metrics_of(2, 6)})
    families = sums.update([], {"p": None})
    assert (value(families, CALLS), value(families, BUSY)) == (2, 0)


def test_a_process_that_comes_back_is_not_counted_twice():
    """Its connection to the controller broke; the process lived on."""
    sums = NodeSums()
    sums.update([], {"p": metrics_of(2)})
    sums.update([], {})
    assert value(sums.update([], {"p": metrics_of(5)}), CALLS) == 5


def test_families_of_another_shape_are_left_out():
    other = Family("calls_total", COUNTER, "Calls.", ("app", "zone"))
    families = NodeSums().update(metrics_of(1), {"p": [(other, [Sample(("a", "z"), 9)])]})
    assert value(families, CALLS) == 1


@given(
    st.lists(
        st.dictionaries(st.sampled_from([f"p{n}" for n in range(100)]), st.integers(0, 5) | st.none(), max_size=100),
        max_size=15,
    )
)
def test_counters_never_fall(scrapes: list[dict[str, int | None]]):
    """In any order of processes that start, end, come back or do not answer; and the sum includes all counts."""
    sums = NodeSums()
    counts: dict[str, int] = {}
    seen: dict[str, int] = {}
    before = 0.0
    for scrape in scrapes:
        replies: dict[str, Families | None] = {}
        for process_id, growth in scrape.items():
            counts[process_id] = counts.get(process_id, 0) + (growth or 0)
            replies[process_id] = None if growth is None else metrics_of(counts[process_id])
            if growth is not None:
                seen[process_id] = counts[process_id]
        now = value(sums.update([], replies), CALLS)
        assert now >= before
        before = now
        if len(seen) <= 64:  # that many ended processes are kept apart
            assert now == sum(seen.values())


def test_counts_of_ended_processes_for_old_applications_are_removed():
    by_application = Family("mesh_calls_total", COUNTER, "Calls.", ("application", "deployment"))
    sums = NodeSums()
    for number in range(200):
        name = f"app-{number}"
        families: Families = [
            (by_application, [Sample((name, "D"), 1), Sample(("stays", "D"), 1), Sample(("", ""), 1)]),
        ]
        sums.update([], {name: families})
        sums.keep_only({"stays", name})
    (found,) = (samples for family, samples in sums.update([], {}) if family == by_application)
    assert {sample.label_values: sample.value for sample in found} == {
        ("stays", "D"): 200,
        ("", ""): 200,
        ("app-199", "D"): 1,
    }


def test_series_of_replicas_that_ended_long_ago_are_dropped():
    """Otherwise each replica that ever was would have some; what all share is kept."""
    of_replica = Family("sold_total", COUNTER, "Sold.", ("application", "replica"))
    sums = NodeSums()
    for number in range(200):
        name = str(number)
        families = sums.update([], {name: [(of_replica, [Sample(("shop", name), 1)]), *metrics_of(1)]})
    series = next(samples for family, samples in families if family == of_replica)
    assert len(series) < 100
    assert value(families, CALLS) == 200
