"""mesh.routing.load_reports: what a process reports of its load, and when (items 227, 233)."""

from typing import Any

import pytest

from mesh.routing.load_reports import LoadReporter, Reading, pause_s
from mesh.routing.snapshot import DeploymentKey

KEY = DeploymentKey("shop", "Model")
OTHER = DeploymentKey("shop", "Other")


def reading(**fields: Any) -> Reading:
    return Reading(**{"deployment": KEY, "interval_s": 10.0, **fields})


@pytest.fixture
def reporter() -> LoadReporter:
    """One that has said at the time 0 that nothing is going on."""
    reporter = LoadReporter()
    assert reporter.take([reading()], 0.0) == []
    return reporter


def test_a_report_gives_the_averages_since_the_one_before(reporter: LoadReporter) -> None:
    assert reporter.take([reading(queued=4, ongoing=10)], 5.0) == []
    (load,) = reporter.take([reading(ongoing=2)], 10.0)
    assert (load.deployment.app, load.deployment.name) == KEY
    assert (load.queued, load.ongoing, load.executing) == (2.0, 6.0, 0.0)


def test_load_that_lasts_is_reported_again_and_again(reporter: LoadReporter) -> None:
    """So that it does not expire."""
    for report in range(1, 5):
        (load,) = reporter.take([reading(executing=3)], report * 10.0)
        assert load.executing == pytest.approx(3.0)


def test_the_end_of_the_load_is_reported_once(reporter: LoadReporter) -> None:
    assert reporter.take([reading(ongoing=1)], 10.0)
    (load,) = reporter.take([reading()], 20.0)
    assert load.ongoing == 0
    assert reporter.take([reading()], 30.0) == []


def test_urgent_values_are_reported_immediately_and_unaveraged(reporter: LoadReporter) -> None:
    """A call that waits for the first replica is reported without averaging (item 231)."""
    (load,) = reporter.take([reading(queued=1, is_urgent=True)], 0.5)
    assert load.queued == 1.0


def test_the_first_report_tells_the_present() -> None:
    (load,) = LoadReporter().take([reading(queued=7)], 123.0)
    assert load.queued == 7.0


def test_a_new_listener_gets_everything(reporter: LoadReporter) -> None:
    assert reporter.take([reading(ongoing=1)], 10.0)
    assert reporter.take([reading(ongoing=1)], 11.0) == []
    reporter.restart()
    assert reporter.take([reading(ongoing=1)], 11.0)


def test_deployments_that_do_not_autoscale_cost_no_report() -> None:
    assert LoadReporter().take([reading(interval_s=0.0, queued=100)], 0.0) == []


def test_a_replica_that_calls_its_own_deployment_makes_one_report(reporter: LoadReporter) -> None:
    own = reading(executing=2, stats={"hunger": 1.0})
    (load,) = reporter.take([reading(ongoing=1, queued=3), own], 10.0)
    assert (load.queued, load.ongoing, load.executing) == (3.0, 1.0, 2.0)
    assert dict(load.stats) == {"hunger": 1.0}


def test_every_deployment_has_its_own_times() -> None:
    reporter = LoadReporter()
    slow, fast = reading(ongoing=1), reading(deployment=OTHER, interval_s=1.0, ongoing=1)
    assert len(reporter.take([slow, fast], 0.0)) == 2
    assert [load.deployment.name for load in reporter.take([slow, fast], 1.0)] == ["Other"]


def test_who_is_not_read_any_more_has_no_load(reporter: LoadReporter) -> None:
    """A handle was shut down: its load ends before its last report expires."""
    assert reporter.take([reading(ongoing=1)], 10.0)
    (load,) = reporter.take([], 10.1)
    assert (load.deployment.name, load.ongoing) == (KEY.name, 0.0)
    assert reporter.take([], 30.0) == []


def test_counters_are_read_more_often_than_they_are_reported() -> None:
    assert pause_s([reading(), reading(interval_s=2.0)], at_most_s=1.0) == pytest.approx(0.2)
    assert pause_s([reading(interval_s=60.0)], at_most_s=1.0) == 1.0
    assert pause_s([reading(interval_s=0.0)], at_most_s=1.0) == 1.0
    assert pause_s([reading(interval_s=0.001)], at_most_s=1.0) == 0.01
