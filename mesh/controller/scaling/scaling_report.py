"""The text of an autoscaling decision for the status and the log. Pure."""

from __future__ import annotations

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.scaling.scaling_rule import Cause, Decision, PendingChange
from mesh.v1 import control_pb2


def scaling_status(
    rules: ScalingRules, decision: Decision | None, current_requests: float, problem: str, now_s: float
) -> control_pb2.AutoscalingStatus:
    """`decision` is the newest one, None before the first."""
    status = control_pb2.AutoscalingStatus(
        min_replicas=rules.min_replicas,
        max_replicas=rules.max_replicas,
        current_requests=current_requests,
        problem=problem,
    )
    if decision is not None:
        status.average_requests = decision.requests
        status.decision = explain(rules, decision, now_s)
    return status


def explain(rules: ScalingRules, decision: Decision, now_s: float) -> str:
    """One sentence: the target, its reason, and which other number is wanted since when."""
    pending = decision.state.pending
    parts = [f"target {decision.target}", _reason(rules, decision)]
    if pending is not None and pending.replicas != decision.target:
        parts.append(_outlook(pending, now_s))
    elif decision.wanted < decision.target:
        parts.append(f"wants {decision.wanted} but waits until every process has reported its load")
    return ": ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:]) + "."


def _reason(rules: ScalingRules, decision: Decision) -> str:
    match decision.cause:
        case Cause.FROM_ZERO:
            return "requests came while there was no replica"
        case Cause.BOUNDS:
            return f"the bounds are {rules.min_replicas} to {rules.max_replicas}"
        case Cause.NONE_RUNNING:
            return f"no replica runs yet, and {_requests(decision.requests)} wait"
        case Cause.NO_ANSWER:
            return f"the policy {rules.policy} has not answered yet"
        case Cause.EXTERNAL:
            return "an external scaler sets it by `mesh scale`"
        case Cause.POLICY:
            return f"the policy {rules.policy} asks for {decision.wanted}"
        case Cause.LOAD:
            return (
                f"{_requests(decision.requests)} ({rules.aggregation} of {rules.look_back_period_s:g} s), "
                f"{rules.target_ongoing_requests:g} wanted per replica"
            )


def _outlook(pending: PendingChange, now_s: float) -> str:
    return f"{pending.replicas} wanted for {now_s - pending.since_at_s:.0f} s"


def _requests(count: float) -> str:
    return f"{round(count, 1):g} requests"
