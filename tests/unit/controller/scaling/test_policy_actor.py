"""mesh.controller.scaling.policy_actor: policies are imported, called and checked."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster import ray_core
from mesh.controller.scaling import policy_actor
from mesh.controller.scaling.policy_actor import PolicyActor
from mesh.usercode.user_code import UserCode, pack
from mesh.usercode.user_failure import UserCodeError
from mesh.v1 import control_pb2

MODULE = """
class Rules:
    @staticmethod
    async def twice(context, *, count):
        return 2 * count

async def more(context):
    return context.running_replicas + 0.5

def wrong(context):
    return {"none": None, "word": "two", "flag": True, "nan": float("nan")}[context.deployment]

def together(contexts, **others):
    return {name: 2 * context.running_replicas for name, context in contexts.items()} | others

def as_for_ray_serve(ctx):
    before = ctx.policy_state.get("calls", 0)
    busy = max(ctx.aggregated_metrics.get("cpu", {0: 0}).values())
    wanted = min(ctx.capacity_adjusted_max_replicas, ctx.current_num_replicas + (busy > 80) + before)
    return wanted, {"calls": before + 1}

class Counted:
    def __init__(self, start):
        self.calls = start

    def __call__(self, ctx):
        self.calls += 1
        return self.calls

def together_for_ray_serve(contexts):
    states = {name: {"calls": each.policy_state.get("calls", 0) + 1} for name, each in contexts.items()}
    return {name: states[name]["calls"] for name in contexts}, states

def bad_state(ctx):
    return 2, "reason"

number = 7
"""


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes an actor for a function of a module that only the search path in the deployment's code leads to."""
    (tmp_path / "rules_of_scaling.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    package = pack(UserCode(dict))
    monkeypatch.setattr(sys, "path", sys.path[:-1])
    monkeypatch.setattr(policy_actor, "begin_process", lambda actor, name, options: None)
    monkeypatch.setattr(ray_core, "kv_get", {"code/x": package}.get)

    def make(function: str, kwargs_json: str = "{}") -> PolicyActor:
        policy = control_pb2.AutoscalingPolicy(function=f"rules_of_scaling:{function}", kwargs_json=kwargs_json)
        return PolicyActor(control_pb2.PolicySpec(policy=policy, code_key="code/x").SerializeToString())

    yield make
    sys.modules.pop("rules_of_scaling", None)


def ask(actor: PolicyActor, deployment: str = "Model") -> float:
    question = control_pb2.PolicyQuestion(
        deployment={"app": "shop", "name": deployment},
        running_replicas=3,
        options={"max_replicas": 8},
        replica_stats=[{"values": {"cpu": 10}}, {"values": {"cpu": 90}}],
    )

    async def start_and_decide() -> bytes:
        if actor._policy is policy_actor._not_started:
            await actor.start()
        return await actor.decide(question.SerializeToString())

    return control_pb2.PolicyAnswer.FromString(asyncio.run(start_and_decide())).replicas


def test_functions_are_found_where_the_deployment_finds_its_modules(actor: Any) -> None:
    assert ask(actor("more")) == 3.5
    assert ask(actor("Rules.twice", '{"count": 4}')) == 8


def test_a_policy_of_ray_serve_decides_and_gets_its_state_back(actor: Any) -> None:
    """It uses the names of that context, and returns a state behind the number (item 225)."""
    made = actor("as_for_ray_serve")
    assert [ask(made) for _ in range(6)] == [4, 5, 6, 7, 8, 8]
    assert ask(made, "Other") == 4


def test_a_class_is_called_once_and_its_object_for_each_decision(actor: Any) -> None:
    made = actor("Counted", '{"start": 4}')
    assert [ask(made), ask(made)] == [5, 6]


def test_a_state_that_is_no_dict_is_refused(actor: Any) -> None:
    with pytest.raises(UserCodeError, match="must return a dict as its state, it returned 'reason'"):
        ask(actor("bad_state"))


@pytest.mark.parametrize("answer", ["none", "word", "flag", "nan"])
def test_what_is_no_number_is_refused(actor: Any, answer: str) -> None:
    with pytest.raises(UserCodeError, match=r"TypeError: .* must return a number of replicas"):
        ask(actor("wrong"), answer)


@pytest.mark.parametrize(
    ("function", "error"), [("missing", "AttributeError: .*missing"), ("number", "not a function")]
)
def test_a_policy_that_cannot_be_called_is_reported(actor: Any, function: str, error: str) -> None:
    with pytest.raises(UserCodeError, match=error):
        ask(actor(function))


def ask_together(actor: PolicyActor) -> dict[str, float]:
    asked = [
        control_pb2.PolicyQuestion(deployment={"app": "shop", "name": name}, running_replicas=number)
        for number, name in enumerate(("Front", "Model"), start=1)
    ]
    question = control_pb2.ApplicationPolicyQuestion(deployments=asked)

    async def start_and_decide() -> bytes:
        if actor._policy is policy_actor._not_started:
            await actor.start()
        return await actor.decide_application(question.SerializeToString())

    return dict(control_pb2.ApplicationPolicyAnswer.FromString(asyncio.run(start_and_decide())).replicas)


def test_a_policy_of_an_application_gets_a_context_for_each_deployment(actor: Any) -> None:
    assert ask_together(actor("together")) == {"Front": 2, "Model": 4}


def test_a_policy_of_an_application_has_a_state_for_each_deployment(actor: Any) -> None:
    made = actor("together_for_ray_serve")
    assert ask_together(made) == {"Front": 1, "Model": 1}
    assert ask_together(made) == {"Front": 2, "Model": 2}


@pytest.mark.parametrize(
    ("function", "kwargs_json", "error"),
    [
        ("together", '{"Model": "many"}', "must return a number of replicas, it returned 'many'"),
        ("together", '{"Modle": 1}', "returned a number for 'Modle', and decides about Front, Model"),
        ("Rules.twice", '{"count": 1}', "must return a dict of numbers by deployment, it returned 2"),
    ],
)
def test_an_answer_about_an_application_is_checked(actor: Any, function: str, kwargs_json: str, error: str) -> None:
    with pytest.raises(UserCodeError, match=error):
        ask_together(actor(function, kwargs_json))
