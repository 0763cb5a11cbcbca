"""The number of replicas for a load: the formula, the delays, scaling to and from zero. Pure.

Theory of operation. A decision looks at the whole state and is made in every turn of the control loop:

1. The load of the look-back period, or the user's policy, says how many replicas are *wanted*.
2. A wanted number above or below the target becomes the *target* when it has persisted for a delay. A change of
   direction restarts the delay. The new target is the newest number when scaling up, and the largest number wanted
   during the delay when scaling down, because adding too late and removing too early both cost calls.
3. Zero is special: a call that finds no replica starts one without delay, and the last replica has a delay of its own.

After a restart the controller does not know the load until every process has reported. Until then
(`paused_until_at_s`) the number may grow but not shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.scaling.load_window import LoadWindow

_ROUNDING = 1e-9
"""Rounding errors of float sums must not cost a replica."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of a deployment at one moment."""

    queued: float = 0.0
    """Waiting in callers for a replica."""
    ongoing: float = 0.0

    @property
    def total(self) -> float:
        return self.queued + self.ongoing


class Cause(Enum):
    """Why a number is wanted."""

    LOAD = auto()
    POLICY = auto()
    FROM_ZERO = auto()
    BOUNDS = auto()
    NONE_RUNNING = auto()
    """No replica runs yet, so the load per replica is unknown."""
    NO_ANSWER = auto()
    """The user's policy has not answered yet."""
    EXTERNAL = auto()
    """Scale requests say how many."""


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A number other than the target that is wanted since `since_at_s`."""

    is_up: bool
    since_at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """What is remembered between two decisions about a deployment."""

    target: int = 0
    """The target at the last decision."""
    window: LoadWindow = field(default_factory=LoadWindow)
    pending: PendingChange | None = None
    paused_until_at_s: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The present state of a deployment."""

    target: int
    """The present target."""
    running: int
    """Replicas that serve."""
    load: Load = field(default_factory=Load)
    policy_replicas: float | None = None
    """The last result of the user's policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    target: int
    """The new target."""
    wanted: int
    """What the load asks for. It becomes the target once it has persisted."""
    cause: Cause
    state: ScalingState
    requests: float
    """Aggregated over the look-back period, as the rules say."""


def decide(rules: ScalingRules, state: ScalingState, observation: Observation, now_s: float) -> Decision:
    """The decision for this observation."""
    state = _remember(rules, state, observation, now_s)
    requests = state.window.aggregate(rules.aggregation, now_s)
    wanted, cause = _wanted(rules, observation, requests)
    target, pending = observation.target, None
    if cause in (Cause.BOUNDS, Cause.FROM_ZERO):
        target = wanted
    elif wanted > observation.target or (wanted < observation.target and now_s >= state.paused_until_at_s):
        pending = _pending_change(state.pending, wanted, wanted > observation.target, now_s)
        if now_s - pending.since_at_s >= _delay_s(rules, observation.target, wanted):
            target = pending.replicas
    # `pending` is kept until the target is seen to have changed: a decision that was lost is repeated immediately.
    state = replace(state, target=observation.target, pending=pending)
    return Decision(target=target, wanted=wanted, cause=cause, state=state, requests=requests)


def replicas_for(rules: ScalingRules, running: int, requests: float) -> int:
    """Replicas for `requests` that `running` (at least 1) replicas shared, not clipped (items 228, 229).

    A small factor may round a smaller number up to the present one. Then it is one less, unless the requests need all
    running replicas: without that exception the number would go up again immediately.
    """
    error = requests / running / rules.target_ongoing_requests
    factor = rules.upscaling_factor if error >= 1 else rules.downscaling_factor
    wanted = _rounded_up(running * (1 + (error - 1) * factor))
    if wanted == running and _rounded_up(requests / rules.target_ongoing_requests) < running:
        wanted -= 1
    return max(0, wanted)


def _remember(rules: ScalingRules, state: ScalingState, observation: Observation, now_s: float) -> ScalingState:
    """The state with the present load. If a deploy has changed the target, nothing is pending any more."""
    # Samples from before every process had reported do not count.
    window = LoadWindow() if now_s < state.paused_until_at_s else state.window
    return replace(
        state,
        window=window.with_sample(now_s, observation.load.total, rules.look_back_period_s),
        pending=state.pending if state.target == observation.target else None,
    )


def _wanted(rules: ScalingRules, observation: Observation, requests: float) -> tuple[int, Cause]:
    if rules.clip(observation.target) != observation.target:
        return rules.clip(observation.target), Cause.BOUNDS
    if observation.target == 0 and observation.load.total > 0:
        return rules.clip(_rounded_up(rules.upscaling_factor)), Cause.FROM_ZERO
    if rules.is_external:
        return observation.target, Cause.EXTERNAL
    if rules.policy and observation.policy_replicas is None:
        return observation.target, Cause.NO_ANSWER
    if rules.policy and observation.policy_replicas is not None:
        return _by_way_of_one(rules.clip(_rounded_up(observation.policy_replicas)), observation.target), Cause.POLICY
    if observation.running == 0 and requests > 0:
        return observation.target, Cause.NONE_RUNNING
    return _by_way_of_one(
        rules.clip(replicas_for(rules, max(1, observation.running), requests)), observation.target
    ), Cause.LOAD


def _by_way_of_one(wanted: int, target: int) -> int:
    """Zero is reached only from one (item 231)."""
    return 1 if wanted == 0 and target > 1 else wanted


def _pending_change(before: PendingChange | None, wanted: int, is_up: bool, now_s: float) -> PendingChange:
    if before is None or before.is_up != is_up:
        return PendingChange(is_up, now_s, wanted)
    return replace(before, replicas=wanted if is_up else max(before.replicas, wanted))


def _delay_s(rules: ScalingRules, target: int, wanted: int) -> float:
    if wanted > target:
        return rules.upscale_delay_s
    return rules.downscale_to_zero_delay_s if wanted == 0 else rules.downscale_delay_s


def _rounded_up(replicas: float) -> int:
    return math.ceil(replicas - _ROUNDING)
