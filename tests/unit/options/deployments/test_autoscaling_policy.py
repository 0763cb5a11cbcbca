"""mesh.options.deployments.autoscaling_policy: the forms in which a policy can be given, and what is refused."""

from typing import Any

import pytest

from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy, parse, read_context
from mesh.v1 import control_pb2
from tests.e2e.scaling_policies import obey

OBEY = "tests.e2e.scaling_policies:obey"


@pytest.mark.parametrize(
    ("given", "function", "kwargs"),
    [
        (OBEY, OBEY, "{}"),
        (obey, OBEY, "{}"),
        ({"policy_function": obey, "policy_kwargs": {"orders": "x"}}, OBEY, '{"orders": "x"}'),
        (AutoscalingPolicy(policy_function="a.b:C.decide"), "a.b:C.decide", "{}"),
    ],
)
def test_a_policy_is_named_in_several_ways(given: object, function: str, kwargs: str) -> None:
    message = parse(given).to_message()
    assert (message.function, message.kwargs_json, message.timeout_s) == (function, kwargs, 5.0)


def local() -> Any:
    def policy(context: object) -> int:
        return 1

    return policy


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("shop.scaling", ValueError, "import path"),
        ("shop:scaling:decide", ValueError, "import path"),
        (":decide", ValueError, "import path"),
        (7, TypeError, "a function or its import path"),
        (lambda context: 1, ValueError, "top level of a module"),
        (local(), ValueError, "top level of a module"),
        ({"function": OBEY}, ValueError, "policy_function"),
        ({"policy_function": OBEY, "kwargs": {}}, TypeError, "kwargs"),
        ({"policy_function": OBEY, "policy_kwargs": {"lock": object()}}, TypeError, "JSON"),
        ({"policy_function": OBEY, "policy_kwargs": [1]}, TypeError, "dict"),
        ({"policy_function": OBEY, "timeout_s": 0}, ValueError, "timeout_s"),
    ],
)
def test_a_policy_that_cannot_be_found_or_called_is_refused(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        AutoscalingConfig(policy=given)  # type: ignore[arg-type]


def test_a_function_of_the_main_program_has_no_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obey, "__module__", "__main__")
    with pytest.raises(ValueError, match="other than the main program"):
        parse(obey)


def test_a_policy_gets_what_the_controller_knows() -> None:
    question = control_pb2.PolicyQuestion(
        deployment={"app": "shop", "name": "Model"},
        running_replicas=2,
        target_replicas=3,
        queued_requests=1.5,
        ongoing_requests=4.0,
        average_requests=5.0,
        options=AutoscalingConfig(max_replicas=9).to_message(),
        replica_stats=[control_pb2.ReplicaStats(values={"hunger": 1.0})],
    )
    context = read_context(question)
    assert (context.app, context.deployment, context.running_replicas, context.target_replicas) == (
        "shop",
        "Model",
        2,
        3,
    )
    assert (context.total_requests, context.average_requests, context.max_replicas) == (5.5, 5.0, 9)
    assert context.replica_stats == ({"hunger": 1.0},)
    assert context.since_last_decision_s is None
    question.since_last_decision_s = 0.0
    assert read_context(question).since_last_decision_s == 0.0
