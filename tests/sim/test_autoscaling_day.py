"""A day of changing load on up to 1,000 replicas: the real rules and planner, a cluster of records, fake time.

The planner is given the whole picture at every step, as in the controller. Replicas take time to start and to drain.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.actions import KillReplica, StartReplica, StopReplica
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.planner import plan
from mesh.controller.scaling.scaling_rule import Load, Observation, ScalingState, decide
from mesh.status import ReplicaState
from tests.unit.controller.builders import KEY

STEP_S = 30.0
DAY_S = 86_400.0
START_S = 40.0
DRAIN_S = 20.0
SETTLE_S = 900.0
"""After a change of load: the delay before fewer replicas, and what it takes to see and to do it."""

Demand = Callable[[float], float]
"""Requests at a time of the day."""


class Cluster:
    """Replicas as the controller sees them."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self._ids = itertools.count()

    def pass_time(self, now_s: float) -> None:
        for replica in list(self.replicas.values()):
            age_s = now_s - replica.since_at_s
            if replica.state == ReplicaState.STARTING and age_s >= START_S:
                self._put(replace(replica, state=ReplicaState.RUNNING, since_at_s=now_s, is_placed=True))
            elif replica.state == ReplicaState.STOPPING and age_s >= DRAIN_S:
                del self.replicas[replica.replica_id]

    def apply(self, desired: Desired, now_s: float) -> None:
        for action in plan(desired, Observed(replicas=tuple(self.replicas.values())), now_s).actions:
            match action:
                case StartReplica(key):
                    replica_id = f"r{next(self._ids)}"
                    self._put(
                        Replica(
                            replica_id=replica_id, deployment=key, version="v1", since_at_s=now_s, created_at_s=now_s
                        )
                    )
                case StopReplica(replica_id, _) | KillReplica(replica_id, _):
                    leaving = self.replicas[replica_id]
                    self._put(replace(leaving, state=ReplicaState.STOPPING, since_at_s=now_s))
                case _:
                    pytest.fail(f"unexpected action {action}")

    @property
    def serving(self) -> int:
        return sum(replica.is_serving for replica in self.replicas.values())

    def _put(self, replica: Replica) -> None:
        self.replicas[replica.replica_id] = replica


@dataclass(frozen=True)
class Moment:
    now_s: float
    requests: float
    target: int
    serving: int


def live(rules: ScalingRules, demand: Demand, duration_s: float = DAY_S) -> Iterator[Moment]:
    """The deployment from its first replica on."""
    cluster, state, target, now_s = Cluster(), ScalingState(), rules.min_replicas, 0.0
    while now_s < duration_s:
        cluster.pass_time(now_s)
        requests, serving = demand(now_s), cluster.serving
        observation = Observation(target=target, running=serving, load=Load(ongoing=requests))
        decision = decide(rules, state, observation, now_s)
        state, target = decision.state, decision.target
        wanted = DeploymentTarget(KEY, "v1", target, scaling=rules)
        cluster.apply(Desired(deployments={KEY: wanted}), now_s)
        yield Moment(now_s, requests, target, serving)
        now_s += STEP_S


def busy_day(seed: int, peak: float) -> Demand:
    """A night and a day, half an hour's waves, noise of 10 %, and a spike of half the peak every two hours or so."""
    dice = random.Random(seed)
    spikes = sorted(dice.uniform(0, DAY_S) for _ in range(12))

    def demand(now_s: float) -> float:
        daily = 0.5 - 0.45 * math.cos(2 * math.pi * now_s / DAY_S)
        waves = 0.05 * math.sin(2 * math.pi * now_s / 1800)
        spike = 0.5 if any(0 <= now_s - start_s < 300 for start_s in spikes) else 0.0
        return max(0.0, peak * (daily + waves + spike) * dice.gauss(1.0, 0.1))

    return demand


def reversals(moments: list[Moment]) -> list[float]:
    """When the target turned from growing to shrinking or back."""
    steps = [
        (after.now_s, after.target > before.target)
        for before, after in itertools.pairwise(moments)
        if after.target != before.target
    ]
    return [second[0] for first, second in itertools.pairwise(steps) if first[1] != second[1]]


def most_in_an_hour(times: list[float]) -> int:
    return max((sum(start_s <= each < start_s + 3600 for each in times) for start_s in times), default=0)


def test_a_thousand_replicas_follow_a_day_without_swinging() -> None:
    rules = ScalingRules(min_replicas=10, max_replicas=1000, target_ongoing_requests=2.0)
    moments = list(live(rules, busy_day(seed=1, peak=1900.0)))
    assert max(moment.serving for moment in moments) > 900
    assert min(moment.target for moment in moments[-30:]) < 250
    # The waves alone turn four times an hour; noise and spikes must not add to that much.
    assert most_in_an_hour(reversals(moments)) <= 6
    assert len(reversals(moments)) <= 24 * 4
    # Spikes come faster than replicas; 4 % of the day is spikes. Apart from them the load is carried.
    overloaded = sum(moment.requests > 2.2 * moment.serving for moment in moments)
    assert overloaded / len(moments) < 0.1
    used = sum(moment.requests / 2 for moment in moments) / sum(moment.serving for moment in moments)
    assert used > 0.75


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.5])
def test_every_change_of_load_comes_to_rest(factor: float) -> None:
    """At the number that the load needs, whatever the factor: below 2, from where on the formula itself swings."""
    rules = ScalingRules(
        min_replicas=1, max_replicas=1000, upscaling_factor=factor, downscaling_factor=factor, downscale_delay_s=60.0
    )
    levels = [200.0, 1500.0, 700.0, 0.5, 90.0]
    hold_s = 4 * SETTLE_S

    def demand(now_s: float) -> float:
        return levels[int(now_s // hold_s)]

    moments = list(live(rules, demand, hold_s * len(levels)))
    for number, level in enumerate(levels):
        settled = [each for each in moments if (number + 0.75) * hold_s <= each.now_s < (number + 1) * hold_s]
        assert {moment.target for moment in settled} == {math.ceil(level / 2)} == {each.serving for each in settled}


def test_load_at_the_edge_between_two_numbers_does_not_make_them_alternate() -> None:
    dice = random.Random(1)
    rules = ScalingRules(min_replicas=1, max_replicas=1000)
    moments = list(live(rules, lambda now_s: 400.0 * dice.gauss(1.0, 0.05)))
    assert all(190 <= moment.target <= 240 for moment in moments[100:])
    assert most_in_an_hour(reversals(moments)) <= 6
    assert len(reversals(moments)) <= 24 * 2


def test_traffic_that_comes_and_goes_brings_replicas_and_takes_them_away() -> None:
    """Two hours of work, two of nothing (item 231)."""
    rules = ScalingRules(min_replicas=0, max_replicas=1000, downscale_to_zero_delay_s=300.0)
    moments = list(live(rules, lambda now_s: 500.0 if now_s % 14_400 < 7200 else 0.0))
    assert sum(before.target == 0 < after.target for before, after in itertools.pairwise(moments)) == 5
    assert all(moment.target == 250 for moment in moments if 600 < moment.now_s % 14_400 < 7200)
    assert all(moment.serving == 0 for moment in moments if moment.now_s % 14_400 > 7200 + 1500)
