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
    question = control_pb2.PolicyQuestion(deployment={"app": "shop", "name": deployment}, running_replicas=3)

    async def start_and_decide() -> bytes:
        await actor.start()
        return await actor.decide(question.SerializeToString())

    return control_pb2.PolicyAnswer.FromString(asyncio.run(start_and_decide())).replicas


def test_functions_are_found_where_the_deployment_finds_its_modules(actor: Any) -> None:
    assert ask(actor("more")) == 3.5
    assert ask(actor("Rules.twice", '{"count": 4}')) == 8


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
        await actor.start()
        return await actor.decide_application(question.SerializeToString())

    return dict(control_pb2.ApplicationPolicyAnswer.FromString(asyncio.run(start_and_decide())).replicas)


def test_a_policy_of_an_application_gets_a_context_for_each_deployment(actor: Any) -> None:
    assert ask_together(actor("together")) == {"Front": 2, "Model": 4}


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
