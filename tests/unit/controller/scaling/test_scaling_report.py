"""mesh.controller.scaling.scaling_report: a sentence for every state."""

from dataclasses import replace

import pytest

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.scaling.scaling_report import explain, scaling_status
from mesh.controller.scaling.scaling_rule import Cause, Decision, PendingChange, ScalingState

RULES = ScalingRules(min_replicas=1, max_replicas=9)
LOADED = Decision(target=3, wanted=3, cause=Cause.LOAD, state=ScalingState(), requests=5.44)


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (LOADED, "target 3: 5.4 requests (mean of 30 s), 2 wanted per replica."),
        (
            replace(LOADED, wanted=5, state=ScalingState(pending=PendingChange(True, 80.0, 5))),
            "target 3: 5.4 requests (mean of 30 s), 2 wanted per replica; 5 wanted for 20 s.",
        ),
        (
            replace(LOADED, wanted=1),
            "target 3: 5.4 requests (mean of 30 s), 2 wanted per replica; wants 1 but waits until every process"
            " has reported its load.",
        ),
        (
            replace(LOADED, cause=Cause.FROM_ZERO, target=1, wanted=1),
            "target 1: requests came while there was no replica.",
        ),
        (replace(LOADED, cause=Cause.BOUNDS), "target 3: the bounds are 1 to 9."),
        (replace(LOADED, cause=Cause.NONE_RUNNING), "target 3: no replica runs yet, and 5.4 requests wait."),
    ],
)
def test_a_decision_explains_itself(decision: Decision, sentence: str) -> None:
    assert explain(RULES, decision, now_s=100.0) == sentence


def test_policies_are_named() -> None:
    rules = replace(RULES, policy="shop.scaling:by_queue")
    assert "shop.scaling:by_queue asks for 3" in explain(rules, replace(LOADED, cause=Cause.POLICY), 0.0)
    assert "has not answered yet" in explain(rules, replace(LOADED, cause=Cause.NO_ANSWER), 0.0)


def test_the_status_tells_bounds_load_and_problem() -> None:
    status = scaling_status(RULES, LOADED, 7.0, "it hangs", 0.0)
    assert (status.min_replicas, status.max_replicas, status.current_requests) == (1, 9, 7.0)
    assert (status.average_requests, status.problem) == (5.44, "it hangs")
    assert scaling_status(RULES, None, 0.0, "", 0.0).decision == ""
