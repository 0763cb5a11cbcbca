"""The actor that runs a user's autoscaling policy, so that no fault of that code reaches the controller."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from mesh.cluster import ray_core
from mesh.logs.log_files import LogName
from mesh.logs.log_setup import begin_process
from mesh.options.deployments.autoscaling_policy import AutoscalingContext, read_context
from mesh.options.logging_options import DEFAULT_LOGGING
from mesh.usercode import user_code
from mesh.usercode.user_failure import errors_as_text
from mesh.v1 import control_pb2


class PolicyActor:
    """Plain class; made an actor where it is spawned. Arguments and answers are serialised mesh.v1 messages."""

    def __init__(self, spec: bytes) -> None:
        self._spec = control_pb2.PolicySpec.FromString(spec)
        key = self._spec.deployment
        begin_process(self, LogName("policy", key.app, key.name), DEFAULT_LOGGING)
        self._policy: Callable[[object], Any] = _not_started
        self._states: dict[str, Mapping[str, Any]] = {}
        """What the policy wants to know again the next time, by deployment."""

    @errors_as_text
    async def start(self) -> None:
        """Import the policy. Raises UserCodeError with what that raised."""
        self._policy = await asyncio.to_thread(self._load)

    @errors_as_text
    async def decide(self, question: bytes) -> bytes:
        """A PolicyQuestion's PolicyAnswer. Raises UserCodeError with what it raised, or for no number."""
        asked = control_pb2.PolicyQuestion.FromString(question)
        number, state = _parted(await self._policy_answer(self._context(asked)))
        replicas = self._checked(number)
        self._keep(asked.deployment.name, state)
        return control_pb2.PolicyAnswer(replicas=replicas).SerializeToString()

    @errors_as_text
    async def decide_application(self, question: bytes) -> bytes:
        """An ApplicationPolicyQuestion's ApplicationPolicyAnswer. Raises UserCodeError like `decide`."""
        asked = control_pb2.ApplicationPolicyQuestion.FromString(question).deployments
        contexts = {each.deployment.name: self._context(each) for each in asked}
        answer, states = _parted(await self._policy_answer(contexts))
        function = self._spec.policy.function
        if not isinstance(answer, Mapping):
            raise TypeError(f"{function} must return a dict of numbers by deployment, it returned {answer!r}")
        if unknown := [name for name in answer if name not in contexts]:
            raise ValueError(
                f"{function} returned a number for {unknown[0]!r}, and decides about {', '.join(sorted(contexts))}"
            )
        replicas = {name: self._checked(number) for name, number in answer.items()}
        for name, state in self._dict(states).items():
            self._keep(name, state)
        return control_pb2.ApplicationPolicyAnswer(replicas=replicas).SerializeToString()

    def _context(self, question: control_pb2.PolicyQuestion) -> AutoscalingContext:
        return read_context(question, self._states.get(question.deployment.name))

    async def _policy_answer(self, context: object) -> object:
        answer = self._policy(context)
        return await answer if inspect.isawaitable(answer) else answer

    def _keep(self, deployment: str, state: object) -> None:
        self._states[deployment] = self._dict(state)

    def _load(self) -> Callable[[object], Any]:
        package = ray_core.kv_get(self._spec.code_key)
        if package is not None:
            user_code.extend_search_path(package)
        module_name, _, name = self._spec.policy.function.partition(":")
        policy: Any = importlib.import_module(module_name)
        for part in name.split("."):
            policy = getattr(policy, part)
        kwargs = json.loads(self._spec.policy.kwargs_json)
        if isinstance(policy, type):
            policy, kwargs = policy(**kwargs), {}
        if not callable(policy):
            raise TypeError(f"{self._spec.policy.function} is not a function but {policy!r}")
        return functools.partial(policy, **kwargs)

    def _dict(self, state: object) -> Mapping[str, Any]:
        if state is not None and not isinstance(state, Mapping):
            raise TypeError(f"{self._spec.policy.function} must return a dict as its state, it returned {state!r}")
        return state or {}

    def _checked(self, answer: object) -> float:
        is_number = isinstance(answer, (int, float)) and not isinstance(answer, bool)
        if not is_number or not math.isfinite(answer):  # type: ignore[arg-type]
            raise TypeError(f"{self._spec.policy.function} must return a number of replicas, it returned {answer!r}")
        return float(answer)  # type: ignore[arg-type]


def _parted(answer: object) -> tuple[object, object]:
    """What was decided, and the state behind it: None if there is none."""
    return answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)


def _not_started(context: object) -> NoReturn:
    raise RuntimeError("the policy was called before it was started")
