"""Telemetry: sources come and go, families of several sources are one, and everything reaches the wire."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.wire import telemetry
from mesh.wire.telemetry import COUNTER, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample
from tests.unit.fakes.small_mesh import CallerIdentity, do_on_io

CALLS = Family("test_calls_total", COUNTER, "Calls.", ("who",))
SECONDS = Family("test_seconds", HISTOGRAM, "Time.", (), LATENCY_BOUNDS)


def source_of(who: str, value: float) -> telemetry.Source:
    return lambda: [(CALLS, [Sample((who,), value)])]


@pytest.fixture
def sources() -> Iterator[list[telemetry.Source]]:
    sources = [source_of("a", 1), source_of("b", 2)]
    for source in sources:
        telemetry.register(source)
    yield sources
    for source in sources:
        telemetry.unregister(source)


def samples(name: str) -> list[Sample]:
    return [sample for family, samples in telemetry.collect() if family.name == name for sample in samples]


def test_families_of_several_sources_are_one(sources: list[telemetry.Source]) -> None:
    assert [(sample.label_values, sample.value) for sample in samples(CALLS.name)] == [(("a",), 1), (("b",), 2)]
    assert sum(family.name == CALLS.name for family, _ in telemetry.collect()) == 1


def test_a_source_that_left_is_not_asked(sources: list[telemetry.Source]) -> None:
    telemetry.unregister(sources[0])
    telemetry.unregister(sources[0])
    assert [sample.label_values for sample in samples(CALLS.name)] == [("b",)]


def test_everything_reaches_the_wire(sources: list[telemetry.Source]) -> None:
    reply = telemetry.to_reply("process-1")
    (family,) = [family for family in reply.families if family.name == CALLS.name]
    assert reply.process_id == "process-1"
    assert [(list(sample.label_values), sample.value) for sample in family.samples] == [(["a"], 1), (["b"], 2)]
    assert (family.help, family.kind, list(family.label_names)) == (CALLS.help, COUNTER, ["who"])


@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_each_observation_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = HistogramCounts()
    for value in values:
        histogram.observe(value)
    sample = histogram.sample(())
    bounds = (*LATENCY_BOUNDS, float("inf"))
    expected = [0] * len(bounds)
    for value in values:
        expected[next(number for number, bound in enumerate(bounds) if value <= bound)] += 1
    assert sample.buckets == expected
    assert sample.sum == pytest.approx(sum(values))


def test_a_router_that_is_gone_is_gone_from_the_metrics() -> None:
    key = DeploymentKey("gone", "Soon")
    router = do_on_io(Router, key, CallerIdentity("p", "n", "", b""))
    assert any(sample.label_values[:2] == key for sample in samples("mesh_links"))
    del router
    gc.collect()
    assert not any(sample.label_values[:2] == key for sample in samples("mesh_links"))
