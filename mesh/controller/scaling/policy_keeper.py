"""The keeper of users' autoscaling policies: it starts their processes, calls them periodically and ends them.

Policy code never runs in the controller, and only the task that calls a policy waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.cluster.keys import policy_name
from mesh.controller.actors.actor_calls import ActorCalls
from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, Runtime, read_answer
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.backoff import Backoff
from mesh.controller.scaling.scaling_memory import Autoscaler
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_PERIOD_MIN_S = 0.05
"""Least pause between two decisions of a policy, whatever its deployment says."""
_RETRY = Backoff(first_s=0.25, max_s=60.0)
_PROBLEM_MAX_CHARS = 8192


class PolicyKeeper:
    def __init__(
        self,
        runtime: Runtime,
        calls: ActorCalls,
        autoscaler: Autoscaler,
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
        new_id: Callable[[], str],
    ) -> None:
        self._runtime = runtime
        self._calls = calls
        self._autoscaler = autoscaler
        self._spawn_task = spawn_task
        self._new_id = new_id
        self._policies: dict[DeploymentKey, _Policy] = {}

    def __repr__(self) -> str:
        return f"<PolicyKeeper {sorted(self.actor_names())}>"

    def use(self, desired: Desired) -> None:
        """Run the policies of these deployments and no others."""
        wanted = _wanted(desired)
        for key, policy in list(self._policies.items()):
            if key not in wanted or not policy.fits(wanted[key]):
                del self._policies[key]
                policy.stop.set()
                # Kill it immediately: its current call may never return. One that stays is an orphan.
                self._spawn_task(self._calls.kill(policy.name), f"end of {policy.name}")
        for key, subject in wanted.items():
            if key in self._policies:
                self._policies[key].subject = subject
            else:
                self._policies[key] = policy = _Policy(subject)
                self._spawn_task(self._keep(policy), f"policy of {subject.title}")

    def actor_names(self) -> set[str]:
        """Names of the policy actors that run now."""
        return {policy.name for policy in self._policies.values()}

    async def _keep(self, policy: _Policy) -> None:
        """Run one process after another until the policy is not wanted any more, with growing pauses after failures."""
        while not policy.stop.is_set():
            policy.name = policy_name(policy.subject.key, self._new_id())
            # Also of another policy that was here before.
            self._report(policy, policy.problem and f"{policy.problem}\nIts next process has not answered yet.")
            began_at_s = asyncio.get_running_loop().time()
            try:
                await self._begin(policy)
                await self._call_repeatedly(policy)
            except (ActorCallError, TimeoutError) as error:
                is_short = asyncio.get_running_loop().time() - began_at_s < settings().controller.policy_stable_after_s
                policy.short_lives = policy.short_lives + 1 if is_short else 0
                self._record_failure(
                    policy,
                    str(error) or f"it did not start within {settings().controller.policy_start_timeout_s:g} s",
                    is_over=True,
                )
            finally:
                await self._calls.kill(policy.name)
            await _pause(policy, policy.restart_delay_s)

    async def _begin(self, policy: _Policy) -> None:
        async with asyncio.timeout(settings().controller.policy_start_timeout_s):
            await self._runtime.spawn_policy(policy.name, policy.spec(), policy.subject.home.spec.options.actor)
            await self._runtime.call(policy.name, "start")

    async def _call_repeatedly(self, policy: _Policy) -> None:
        """Returns when the policy is not wanted any more. Raises ActorCallError when its process has to be replaced."""
        while not policy.stop.is_set():
            try:
                await self._call(policy)
            except TimeoutError as error:
                raise ActorCallError(f"no answer within {policy.policy.timeout_s:g} s") from error
            except ActorDiedError as error:
                raise ActorCallError(f"its process ended: {error}") from error
            except ActorCallError as error:
                self._record_failure(policy, str(error))
            await _pause(policy, max(policy.delay_s, policy.subject.interval_s, _PERIOD_MIN_S))

    async def _call(self, policy: _Policy) -> None:
        results = await (self._ask_once if policy.subject.is_application else self._ask_single)(policy)
        policy.failures, policy.problem = 0, ""
        if not policy.stop.is_set():
            self._report(policy, "")
            for key, replicas in results.items():
                self._autoscaler.policy_result(key, replicas)

    async def _ask_single(self, policy: _Policy) -> dict[DeploymentKey, float]:
        (target,) = policy.subject.targets
        answer = read_answer(
            control_pb2.PolicyAnswer, await self._asked(policy, "decide", self._question(target).SerializeToString())
        )
        return {target.key: _checked(answer.replicas)}

    async def _ask_once(self, policy: _Policy) -> dict[DeploymentKey, float]:
        """About all deployments of an application."""
        keys = {target.key.name: target.key for target in policy.subject.targets}
        question = control_pb2.ApplicationPolicyQuestion(deployments=map(self._question, policy.subject.targets))
        answer = read_answer(
            control_pb2.ApplicationPolicyAnswer,
            await self._asked(policy, "decide_application", question.SerializeToString()),
        )
        return {keys[name]: _checked(replicas) for name, replicas in answer.replicas.items() if name in keys}

    def _question(self, target: DeploymentTarget) -> control_pb2.PolicyQuestion:
        return self._autoscaler.policy_request(target.key, target.spec.options.autoscaling)

    async def _asked(self, policy: _Policy, method: str, question: bytes) -> bytes | None:
        async with asyncio.timeout(policy.policy.timeout_s):
            return await self._runtime.call(policy.name, method, question)

    def _record_failure(self, policy: _Policy, problem: str, *, is_over: bool = False) -> None:
        """`is_over`: the process has ended or is about to be killed."""
        policy.failures += 1
        text = policy.problem = f"{policy.policy.function} failed: {problem[:_PROBLEM_MAX_CHARS]}"
        if is_over:
            text += f"\nIts next process starts in {policy.restart_delay_s:g} s."
        if not policy.stop.is_set():
            logger.warning("the autoscaling policy of %s failed: %s", policy.subject.title, text)
            self._report(policy, text)

    def _report(self, policy: _Policy, problem: str) -> None:
        """At all that it decides about, also what its last answer left out. Empty: nothing is wrong with it."""
        for target in policy.subject.targets:
            self._autoscaler.policy_problem(target.key, problem)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a policy decides about: one deployment, or those of an application that share its policy."""

    key: DeploymentKey
    """The name is empty for an application."""
    targets: tuple[DeploymentTarget, ...]
    home: DeploymentTarget
    """Where the policy's code is: that deployment, or the ingress of the application."""

    @property
    def is_application(self) -> bool:
        return not self.key.name

    @property
    def title(self) -> str:
        return f"application {self.key.app}" if self.is_application else str(self.key)

    @property
    def interval_s(self) -> float:
        return min(target.spec.options.autoscaling.metrics_interval_s for target in self.targets)


def _wanted(desired: Desired) -> dict[DeploymentKey, _Subject]:
    groups: dict[DeploymentKey, list[DeploymentTarget]] = {}
    for key, target in desired.deployments.items():
        if target.scaling and target.scaling.policy:
            is_shared = target.spec.options.autoscaling.policy.is_of_application
            groups.setdefault(DeploymentKey(key.app, "") if is_shared else key, []).append(target)
    return {key: _Subject(key, tuple(targets), _home(desired, key, targets)) for key, targets in groups.items()}


def _home(desired: Desired, key: DeploymentKey, targets: Sequence[DeploymentTarget]) -> DeploymentTarget:
    return (
        targets[0] if key.name else desired.deployments[DeploymentKey(key.app, desired.applications[key.app].ingress)]
    )


class _Policy:
    """A policy that runs until `stop`."""

    def __init__(self, subject: _Subject) -> None:
        self.subject = subject
        self.name = ""
        """Name of its present actor."""
        self.failures = 0
        """In a row."""
        self.problem = ""
        """Why the last call failed; empty once one has not."""
        self.short_lives = 0
        """Consecutive processes that ended soon."""
        self.stop = asyncio.Event()

    @property
    def delay_s(self) -> float:
        """Pause after this number of failures."""
        return _RETRY.pause_s(self.failures)

    @property
    def restart_delay_s(self) -> float:
        """Pause before the next process. An answer resets `failures`, but not `short_lives`."""
        return _RETRY.pause_s(max(self.failures, self.short_lives))

    @property
    def policy(self) -> control_pb2.AutoscalingPolicy:
        """The same for all that it decides about."""
        return self.subject.targets[0].spec.options.autoscaling.policy

    def spec(self) -> control_pb2.PolicySpec:
        key = self.subject.key
        return control_pb2.PolicySpec(
            deployment={"app": key.app, "name": key.name}, policy=self.policy, code_key=self.subject.home.spec.code_key
        )

    def fits(self, subject: _Subject) -> bool:
        """Whether its process can decide about that: same function, same code, same environment."""
        own, other = self.subject.home.spec, subject.home.spec
        return (
            self.policy == subject.targets[0].spec.options.autoscaling.policy
            and (own.code_key, own.version) == (other.code_key, other.version)
            and own.options.actor.runtime_env_json == other.options.actor.runtime_env_json
        )


def _checked(replicas: float) -> float:
    """A number in an answer, checked again here because user code may corrupt the process that checked it."""
    if not math.isfinite(replicas):
        raise ActorCallError(f"its process answers {replicas} replicas")
    return replicas


async def _pause(policy: _Policy, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await policy.stop.wait()
