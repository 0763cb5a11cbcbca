"""Owns how many replicas a deployment shall have, given its load: the formula, the delays, to and from zero. Pure.

Theory of operation. A decision looks at the whole state and is made at every turn of the control loop:

1. The load of the look-back period says how many replicas are *wanted* (or the user's policy does).
2. Wanted more or wanted less has to persist before it becomes the *target*. A change of direction starts anew. What
   becomes the target then is for more replicas the newest number, for fewer the largest that was wanted meanwhile: to
   add too late costs calls, to remove too early does too.
3. Zero is special: a call that finds no replica gets one at once, and the last replica leaves by a delay of its own.

After a restart of the controller nothing is known of the load until everybody has reported. Meanwhile
(`paused_until_at_s`) the number may grow but not shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.scaling.load_window import LoadWindow

_ROUNDING = 1e-9
"""What sums of floats are off by must not cost a replica."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of a deployment at one moment."""

    queued: float = 0.0
    """Waiting in their callers for a replica."""
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
    NOBODY_RUNS = auto()
    """Replicas were asked for and none runs yet: nothing can be said of what one of them carries."""
    NO_ANSWER = auto()
    """The user's policy has not said anything yet."""


@dataclass(frozen=True, slots=True)
class PendingChange:
    """Another number than the target has been wanted since then."""

    is_up: bool
    since_at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """What is remembered between two looks at a deployment."""

    target: int = 0
    """The target when it was looked at last."""
    window: LoadWindow = field(default_factory=LoadWindow)
    pending: PendingChange | None = None
    paused_until_at_s: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a look at a deployment shows."""

    target: int
    """Replicas it shall have until now."""
    running: int
    """Replicas that serve."""
    load: Load = field(default_factory=Load)
    policy_replicas: float | None = None
    """What the user's policy said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    target: int
    """Replicas it shall have from now on."""
    wanted: int
    """What the load asks for: the target once that has persisted."""
    cause: Cause
    state: ScalingState
    requests: float
    """Of the look-back period, as the rules aggregate it."""


def decide(rules: ScalingRules, state: ScalingState, observation: Observation, now_s: float) -> Decision:
    """The target after a look at the deployment."""
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
    # Until the target is seen to have changed nothing is forgotten: a decision that got lost is made again at once.
    state = replace(state, target=observation.target, pending=pending)
    return Decision(target=target, wanted=wanted, cause=cause, state=state, requests=requests)


def replicas_for(rules: ScalingRules, running: int, requests: float) -> int:
    """Replicas for `requests` that `running` (at least 1) replicas shared, not clipped (items 228, 229).

    A small factor may round a smaller number back to the present one; then it is one less, unless the requests need
    all that run: forced down regardless, the number would go up again at once.
    """
    error = requests / running / rules.target_ongoing_requests
    factor = rules.upscaling_factor if error >= 1 else rules.downscaling_factor
    wanted = _rounded_up(running * (1 + (error - 1) * factor))
    if wanted == running and _rounded_up(requests / rules.target_ongoing_requests) < running:
        wanted -= 1
    return max(0, wanted)


def _remember(rules: ScalingRules, state: ScalingState, observation: Observation, now_s: float) -> ScalingState:
    """The state with what is seen now. Somebody else may have changed the target: then nothing has persisted."""
    # What was seen before everybody had reported says nothing about the past.
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
    if rules.policy and observation.policy_replicas is None:
        return observation.target, Cause.NO_ANSWER
    if rules.policy and observation.policy_replicas is not None:
        return _by_way_of_one(rules.clip(_rounded_up(observation.policy_replicas)), observation.target), Cause.POLICY
    if observation.running == 0 and requests > 0:
        return observation.target, Cause.NOBODY_RUNS
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
