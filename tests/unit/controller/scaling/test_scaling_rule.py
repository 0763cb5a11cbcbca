"""mesh.controller.scaling.scaling_rule: the formula, the delays, zero, pauses and policies (items 227–231)."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.scaling.scaling_rule import Cause, Decision, Load, Observation, ScalingState, decide, replicas_for

RULES = ScalingRules(min_replicas=0, max_replicas=100, look_back_period_s=30.0)
AT_ONCE = ScalingRules(
    min_replicas=0,
    max_replicas=100,
    look_back_period_s=1.0,
    upscale_delay_s=0.0,
    downscale_delay_s=0.0,
    downscale_to_zero_delay_s=0.0,
)

counts = st.integers(1, 1000)
loads = st.floats(0, 10_000)
factors = st.floats(0.05, 3.0)


class Deployment:
    """A deployment observed repeatedly; replicas start and stop immediately, unless `running` says otherwise."""

    def __init__(self, rules: ScalingRules, target: int, **state: Any) -> None:
        self.rules = rules
        self.target = target
        self.state = ScalingState(target=target, **state)
        self.changes: list[tuple[float, int]] = []

    def look(self, now_s: float, total: float, *, running: int | None = None, policy: float | None = None) -> Decision:
        observation = Observation(
            target=self.target,
            running=self.target if running is None else running,
            load=Load(ongoing=total),
            policy_replicas=policy,
        )
        decision = decide(self.rules, self.state, observation, now_s)
        self.state = decision.state
        if decision.target != self.target:
            self.target = decision.target
            self.changes.append((now_s, decision.target))
        return decision

    def run(self, total: float, *, from_s: int, to_s: int) -> int:
        """Look every second; returns the target at the end."""
        for now_s in range(from_s, to_s):
            self.look(float(now_s), total)
        return self.target


@pytest.mark.parametrize(
    ("running", "total", "expected"),
    [
        (1, 2, 1),
        (1, 2.1, 2),
        (1, 20, 10),
        (4, 8, 4),
        (4, 7.9, 4),
        (4, 6, 3),
        (10, 0, 0),
        (3, 6.0000000001, 3),
    ],
)
def test_every_replica_gets_its_share(running: int, total: float, expected: int) -> None:
    """The number is rounded up (item 228)."""
    assert replicas_for(RULES, running, total) == expected


@pytest.mark.parametrize(
    ("factor", "running", "total", "expected"),
    [
        (0.5, 4, 16, 6),
        (2.0, 4, 16, 12),
        (0.5, 4, 0, 2),
        (2.0, 4, 4, 0),
        (0.1, 4, 4, 3),
        (0.1, 4, 7.9, 4),
    ],
)
def test_factors_stretch_the_step(factor: float, running: int, total: float, expected: int) -> None:
    """A step that a small factor rounds away is one replica, unless the load needs all (items 228, 229)."""
    rules = ScalingRules(upscaling_factor=factor, downscaling_factor=factor)
    assert replicas_for(rules, running, total) == expected


@given(counts, loads)
def test_without_factors_the_present_number_does_not_matter(running: int, total: float) -> None:
    assert replicas_for(RULES, running, total) == math.ceil(total / 2 - 1e-9)


@given(counts, loads, factors, factors)
def test_a_step_goes_in_the_direction_of_the_load(running: int, total: float, up: float, down: float) -> None:
    rules = ScalingRules(upscaling_factor=up, downscaling_factor=down)
    wanted = replicas_for(rules, running, total)
    assert wanted >= 0
    if total >= 2 * running:
        assert wanted >= running
    else:
        assert wanted <= running


@given(counts, loads, factors, factors)
def test_steady_load_comes_to_rest_at_what_it_needs(running: int, total: float, up: float, down: float) -> None:
    """With factors up to 1 the number neither sticks nor oscillates (item 229)."""
    rules = ScalingRules(upscaling_factor=min(up, 1.0), downscaling_factor=min(down, 1.0))
    for _ in range(2000):
        step = replicas_for(rules, max(1, running), total)
        if step == running:
            break
        running = step
    assert replicas_for(rules, max(1, running), total) == running == math.ceil(total / 2 - 1e-9)


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 50), st.none() | st.floats(-10, 1000)), max_size=50))
def test_the_target_never_leaves_the_bounds(looks: list[tuple[float, int, float | None]]) -> None:
    deployment = Deployment(ScalingRules(min_replicas=2, max_replicas=9, upscale_delay_s=1, downscale_delay_s=1), 4)
    for now_s, (total, running, policy) in enumerate(looks):
        deployment.look(float(now_s), total, running=running, policy=policy)
        assert 2 <= deployment.target <= 9


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_a_look_that_is_repeated_changes_nothing(totals: list[float]) -> None:
    once, twice = Deployment(RULES, 3), Deployment(RULES, 3)
    for second, total in enumerate(totals):
        once.look(float(second), total)
        twice.look(float(second), total)
        twice.look(float(second), total)
    assert once.changes == twice.changes


def test_more_replicas_come_when_they_were_wanted_for_the_delay() -> None:
    """The number then is the newest one (item 230)."""
    deployment = Deployment(RULES, 1)
    assert deployment.run(2, from_s=0, to_s=60) == 1
    deployment.run(8, from_s=60, to_s=100)
    ((changed_s, target),) = deployment.changes
    assert changed_s == 91.0  # the average passes 2 one second after the load
    assert target == 4


def test_fewer_replicas_stay_after_the_delay_by_the_largest_number_wanted_meanwhile() -> None:
    deployment = Deployment(RULES, 5)
    deployment.run(10, from_s=0, to_s=40)
    deployment.run(2, from_s=40, to_s=300)
    deployment.run(6, from_s=300, to_s=340)
    deployment.run(2, from_s=340, to_s=700)
    ((changed_s, target),) = deployment.changes
    assert target == 4
    assert 640 <= changed_s <= 680


def test_a_change_of_direction_restarts_the_delay() -> None:
    """A load that alternates changes nothing (item 230)."""
    deployment = Deployment(ScalingRules(max_replicas=9, look_back_period_s=1.0), 2)
    for start_s in range(0, 2000, 50):
        deployment.run(8, from_s=start_s, to_s=start_s + 25)
        deployment.run(1, from_s=start_s + 25, to_s=start_s + 50)
    assert deployment.changes == []


def test_traffic_at_zero_is_answered_at_once() -> None:
    """It starts one replica, or as many as the factor says (item 231)."""
    assert Deployment(RULES, 0).look(0.0, 50).target == 1
    eager = ScalingRules(min_replicas=0, max_replicas=100, upscaling_factor=2.5)
    decision = Deployment(eager, 0).look(0.0, 0.1)
    assert (decision.target, decision.cause) == (3, Cause.FROM_ZERO)
    assert Deployment(ScalingRules(min_replicas=0, max_replicas=2, upscaling_factor=9.0), 0).look(0.0, 1).target == 2


def test_the_way_to_zero_leads_over_one() -> None:
    """The last step has a delay of its own (item 231)."""
    rules = ScalingRules(min_replicas=0, max_replicas=9, downscale_delay_s=60.0, downscale_to_zero_delay_s=200.0)
    deployment = Deployment(rules, 5)
    deployment.run(0, from_s=0, to_s=400)
    assert deployment.changes == [(60.0, 1), (261.0, 0)]
    assert deployment.run(0, from_s=400, to_s=500) == 0


def test_traffic_now_and_then_keeps_the_last_replica() -> None:
    deployment = Deployment(RULES, 1)
    for start_s in range(0, 6000, 500):
        deployment.run(0.01, from_s=start_s, to_s=start_s + 1)
        deployment.run(0, from_s=start_s + 1, to_s=start_s + 500)
    assert deployment.changes == []


def test_nothing_is_decided_by_load_while_no_replica_runs() -> None:
    """228 says nothing of zero replicas: they start, or fail to."""
    deployment = Deployment(AT_ONCE, 3)
    assert deployment.look(0.0, 500, running=0).cause is Cause.NONE_RUNNING
    assert deployment.target == 3
    assert deployment.look(1.0, 500, running=1).target == 100


def test_replicas_that_never_came_are_given_up_without_calls() -> None:
    deployment = Deployment(AT_ONCE, 3)
    deployment.look(0.0, 0, running=0)
    assert deployment.look(1.0, 0, running=0).target == 0


def test_until_every_process_has_reported_the_number_grows_but_does_not_shrink() -> None:
    """A restarted controller does not take silence for idleness (item 183)."""
    deployment = Deployment(AT_ONCE, 5, paused_until_at_s=10.0)
    assert deployment.run(0, from_s=0, to_s=10) == 5
    grown = Deployment(AT_ONCE, 5, paused_until_at_s=10.0)
    grown.look(0.0, 0)
    assert grown.look(1.0, 20).target == 10
    assert grown.run(0, from_s=2, to_s=10) == 10
    assert grown.run(0, from_s=10, to_s=14) == 0


def test_samples_from_before_every_process_had_reported_do_not_count() -> None:
    rules = ScalingRules(min_replicas=1, max_replicas=9, look_back_period_s=30.0, downscale_delay_s=0.0)
    deployment = Deployment(rules, 5, paused_until_at_s=10.0)
    deployment.run(0, from_s=0, to_s=9)
    assert deployment.run(10, from_s=9, to_s=100) == 5
    assert deployment.changes == []


def test_a_target_changed_by_a_deploy_restarts_the_delay() -> None:
    deployment = Deployment(RULES, 5)
    deployment.run(2, from_s=0, to_s=590)
    deployment.target = 6
    assert deployment.run(2, from_s=590, to_s=700) == 6


def test_a_decision_that_could_not_be_stored_is_made_again_at_once() -> None:
    """Without the delay that has passed already."""
    deployment = Deployment(RULES, 5)
    deployment.run(2, from_s=0, to_s=600)
    for now_s in (600.0, 601.0, 602.0):
        assert deployment.look(now_s, 2).target == 1
        deployment.target = 5
    deployment.target = 1
    assert deployment.look(603.0, 2).state.pending is None


def test_other_bounds_hold_at_once() -> None:
    deployment = Deployment(ScalingRules(min_replicas=2, max_replicas=4), 9)
    assert deployment.look(0.0, 1000).cause is Cause.BOUNDS
    assert deployment.target == 4


def test_a_policy_decides_in_the_place_of_the_formula() -> None:
    rules = ScalingRules(min_replicas=1, max_replicas=9, policy="m:f", upscale_delay_s=3.0, downscale_delay_s=3.0)
    deployment = Deployment(rules, 2)
    assert deployment.look(0.0, 100).cause is Cause.NO_ANSWER
    for second in range(1, 10):
        deployment.look(float(second), 0, policy=4.2)
    assert deployment.changes == [(4.0, 5)]
    assert deployment.look(10.0, 0, policy=1e9).wanted == 9


def test_a_policy_is_not_asked_whether_the_first_call_is_served() -> None:
    deployment = Deployment(ScalingRules(min_replicas=0, max_replicas=9, policy="m:f"), 0)
    assert deployment.look(0.0, 1, policy=0).target == 1


def test_ten_callers_that_come_and_go_do_not_make_the_number_swing() -> None:
    """Noise within the look-back period is averaged, and what is left does not persist."""
    deployment = Deployment(ScalingRules(min_replicas=1, max_replicas=50), 10)
    for second in range(3600):
        deployment.look(float(second), 20 + 8 * math.sin(second) + 5 * math.cos(second * 1.7))
    assert len(deployment.changes) <= 2
