"""mesh.controller.scaling.scaling_memory: what is remembered of each deployment, and from when on."""

from typing import Any

import pytest

from mesh.controller.desired.desired_state import Desired
from mesh.controller.scaling.scaling_memory import Autoscaler
from mesh.controller.scaling.scaling_rule import Load
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, desired_of, replica

QUICK = {"max_replicas": 9, "upscale_delay_s": 0, "downscale_delay_s": 0, "look_back_period_s": 1.0}


class Scaling:
    """An autoscaler, its clock and how often it has woken the control loop."""

    def __init__(self, *used_before: Desired) -> None:
        self.now_s = 100.0
        self.woken = 0
        self.autoscaler = Autoscaler(lambda: self.now_s, self._wake)
        for desired in used_before:
            self.autoscaler.use(desired)

    def report(self, stream: object = "stream", **load: float) -> None:
        message = control_pb2.DeploymentLoad(deployment={"app": KEY.app, "name": KEY.name}, **load)  # type: ignore[arg-type]
        self.autoscaler.report_load("process", stream, [message])

    def decide(self, desired: Desired, running: int) -> dict[Any, int]:
        self.now_s += 1.0
        return self.autoscaler.decide(desired, {KEY: [replica() for _ in range(running)]})

    def _wake(self) -> None:
        self.woken += 1


def wanted(num_replicas: int, **fields: Any) -> Desired:
    return desired_of(application(num_replicas=num_replicas, autoscaling=options(**fields)))


def options(**fields: Any) -> control_pb2.AutoscalingOptions:
    return AutoscalingConfig(**{**QUICK, **fields}).to_message()


NOTHING = Desired()


def test_reports_become_targets() -> None:
    scaling = Scaling(NOTHING, wanted(1))
    scaling.report(queued=4, ongoing=2)
    assert scaling.decide(wanted(1), 1) == {KEY: 3}
    status = scaling.autoscaler.statuses()[KEY]
    assert (status.current_requests, status.min_replicas, status.max_replicas) == (6.0, 1, 9)
    assert status.decision.startswith("target 3: 6 requests")


def test_only_traffic_at_zero_hurries_the_loop() -> None:
    """Otherwise the next turn is soon enough, however many processes report."""
    zero = Scaling(NOTHING, wanted(0, min_replicas=0))
    zero.report()
    assert zero.woken == 0
    zero.report(queued=1)
    assert zero.woken == 1
    busy = Scaling(NOTHING, wanted(1))
    busy.decide(wanted(1), 1)
    busy.report(queued=100)
    assert busy.woken == 0


def test_a_new_deployment_is_idle_and_one_that_was_there_before_has_not_reported_yet() -> None:
    """After a restart nothing shrinks before the reports are due (item 183)."""
    assert Scaling(NOTHING, wanted(5)).decide(wanted(5), 5) == {KEY: 1}
    restarted = Scaling(wanted(5))
    assert restarted.decide(wanted(5), 5) == {}
    switched_on = Scaling(desired_of(application(num_replicas=5)), wanted(5))
    assert switched_on.decide(wanted(5), 5) == {}
    for scaling in (restarted, switched_on):
        scaling.now_s += 20.0
        assert scaling.decide(wanted(5), 5) == {KEY: 1}


def test_loads_are_forgotten_with_their_stream_or_after_a_while() -> None:
    """A caller that is gone holds no replica (item 233)."""
    for is_stream_lost in (True, False):
        scaling = Scaling(NOTHING, wanted(1))
        scaling.report(ongoing=10)
        assert scaling.decide(wanted(1), 1) == {KEY: 5}
        if is_stream_lost:
            scaling.autoscaler.forget_stream("stream")
        else:
            scaling.now_s += 20.0
        scaling.decide(wanted(5), 5)
        scaling.now_s += 2.0
        assert scaling.decide(wanted(5), 5) == {KEY: 1}


def test_reports_on_what_does_not_autoscale_are_for_the_status_only() -> None:
    scaling = Scaling(NOTHING, desired_of(application()))
    assert scaling.autoscaler.loads() == {KEY: Load()}
    scaling.report(queued=10, ongoing=5)
    assert scaling.decide(desired_of(application()), 2) == {}
    assert scaling.autoscaler.statuses() == {}
    assert scaling.autoscaler.loads() == {KEY: Load(queued=10, ongoing=5)}
    scaling.now_s += 20.0
    scaling.decide(desired_of(application()), 2)
    assert scaling.autoscaler.loads() == {KEY: Load()}


def test_reports_on_unknown_deployments_are_ignored() -> None:
    scaling = Scaling()
    scaling.report(queued=10)
    scaling.autoscaler.use(NOTHING)
    scaling.report(queued=10)
    assert scaling.autoscaler.loads() == {}


def test_other_rules_hold_from_the_next_decision_on_and_forget_nothing() -> None:
    scaling = Scaling(NOTHING, wanted(1))
    scaling.report(queued=10)
    scaling.autoscaler.use(wanted(1, max_replicas=3))
    assert scaling.decide(wanted(1, max_replicas=3), 1) == {KEY: 3}


def test_decisions_come_as_often_as_reports() -> None:
    assert Scaling().autoscaler.period_s(at_most_s=1.0) == 1.0
    assert Scaling(wanted(1)).autoscaler.period_s(at_most_s=1.0) == 1.0
    assert Scaling(wanted(1, metrics_interval_s=0.2)).autoscaler.period_s(at_most_s=1.0) == pytest.approx(0.2)
    assert Scaling(wanted(1, metrics_interval_s=0.001)).autoscaler.period_s(at_most_s=1.0) == pytest.approx(0.05)


def test_a_policy_is_asked_with_what_is_known() -> None:
    scaled = wanted(2, policy="shop:decide")
    scaling = Scaling(NOTHING, scaled)
    scaling.report(queued=3, executing=4, stats={"hunger": 2.0})  # type: ignore[arg-type]
    assert scaling.decide(scaled, 2) == {}
    question = scaling.autoscaler.policy_request(KEY, options())
    assert (question.running_replicas, question.target_replicas) == (2, 2)
    assert (question.queued_requests, question.ongoing_requests, question.average_requests) == (3.0, 4.0, 7.0)
    assert [dict(stats.values) for stats in question.replica_stats] == [{"hunger": 2.0}]
    assert not question.HasField("since_last_decision_s")
    scaling.autoscaler.policy_result(KEY, 3.0)
    assert scaling.decide(scaled, 2) == {KEY: 3}
    scaling.now_s += 5.0
    assert scaling.autoscaler.policy_request(KEY, options()).since_last_decision_s == 5.0


def test_what_a_policy_said_last_stays_while_it_fails() -> None:
    scaled = wanted(2, policy="shop:decide")
    scaling = Scaling(NOTHING, scaled)
    scaling.autoscaler.policy_result(KEY, 2.0)
    scaling.autoscaler.policy_problem(KEY, "no idea")
    assert scaling.decide(scaled, 2) == {}
    assert scaling.autoscaler.statuses()[KEY].problem == "no idea"
    other = wanted(2, policy="shop:other")
    scaling.autoscaler.use(other)
    assert scaling.decide(other, 2) == {}
    assert "has not answered yet" in scaling.autoscaler.statuses()[KEY].decision
    assert scaling.autoscaler.statuses()[KEY].problem == ""


def test_an_answer_that_comes_too_late_is_of_no_interest() -> None:
    scaling = Scaling(NOTHING, wanted(2), NOTHING)
    scaling.autoscaler.policy_result(KEY, 9.0)
    scaling.autoscaler.policy_problem(KEY, "gone")
    assert scaling.autoscaler.statuses() == {}


def test_the_autoscaler_shows_its_targets() -> None:
    scaling = Scaling(wanted(3))
    assert repr(scaling.autoscaler) == f"<Autoscaler, targets: {{'{KEY}': 3}}, problems: 0>"
