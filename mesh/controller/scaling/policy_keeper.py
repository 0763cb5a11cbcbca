"""Owns the processes of users' autoscaling policies: each is started, asked again and again, and ended.

Nothing of a policy runs here, and nothing waits for one but the task that asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, Runtime, policy_name, read_answer
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.backoff import Backoff
from mesh.controller.scaling.scaling_memory import Autoscaler
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_START_TIMEOUT_S = 600.0
"""Setting up a runtime environment and importing what a policy needs may take minutes."""
_PERIOD_MIN_S = 0.05
_RETRY = Backoff(first_s=0.25, max_s=60.0)
_LONG_LIFE_S = 60.0
"""A process that ends sooner makes the next one wait longer, whatever it has answered."""
_PROBLEM_MAX_CHARS = 8192


class PolicyKeeper:
    def __init__(
        self,
        runtime: Runtime,
        autoscaler: Autoscaler,
        spawn_task: Callable[[Coroutine[Any, Any, None], str], object],
        new_id: Callable[[], str],
    ) -> None:
        self._runtime = runtime
        self._autoscaler = autoscaler
        self._spawn_task = spawn_task
        self._new_id = new_id
        self._kept: dict[DeploymentKey, _Policy] = {}

    def use(self, desired: Desired) -> None:
        """From now on the policies of these deployments are asked, and no others."""
        wanted = {
            key: target for key, target in desired.deployments.items() if target.scaling and target.scaling.policy
        }
        for key, kept in list(self._kept.items()):
            if key not in wanted or not kept.fits(wanted[key]):
                del self._kept[key]
                kept.stop.set()
                # At once: it may be in the middle of an answer that takes for ever.
                self._spawn_task(self._end(kept.name), f"end of {kept.name}")
        for key, target in wanted.items():
            if key in self._kept:
                self._kept[key].target = target
            else:
                self._kept[key] = kept = _Policy(target)
                self._spawn_task(self._keep(kept), f"policy of {key}")

    def actor_names(self) -> set[str]:
        """Of the processes that are asked now."""
        return {kept.name for kept in self._kept.values()}

    async def _keep(self, kept: _Policy) -> None:
        """One process after another until it is not wanted any more; each that fails makes the next wait longer."""
        while not kept.stop.is_set():
            kept.name = policy_name(kept.target.key, self._new_id())
            began_at_s = asyncio.get_running_loop().time()
            try:
                await self._begin(kept)
                await self._ask_while_it_lives(kept)
            except (ActorCallError, TimeoutError) as error:
                is_short = asyncio.get_running_loop().time() - began_at_s < _LONG_LIFE_S
                kept.short_lives = kept.short_lives + 1 if is_short else 0
                self._record_failure(
                    kept, str(error) or f"it did not start within {_START_TIMEOUT_S:g} s", is_over=True
                )
            finally:
                await self._end(kept.name)
            await _pause(kept, kept.restart_delay_s)

    async def _begin(self, kept: _Policy) -> None:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await self._runtime.spawn_policy(kept.name, kept.spec(), kept.target.spec.options.actor)
            await self._runtime.call(kept.name, "start")

    async def _ask_while_it_lives(self, kept: _Policy) -> None:
        """Returns when nobody wants its answers. Raises ActorCallError when the process has to be replaced."""
        while not kept.stop.is_set():
            try:
                await self._ask(kept)
            except TimeoutError as error:
                raise ActorCallError(f"no answer within {kept.policy.timeout_s:g} s") from error
            except ActorDiedError as error:
                raise ActorCallError(f"its process ended: {error}") from error
            except ActorCallError as error:
                self._record_failure(kept, str(error))
            await _pause(kept, max(kept.delay_s, kept.options.metrics_interval_s, _PERIOD_MIN_S))

    async def _ask(self, kept: _Policy) -> None:
        question = self._autoscaler.policy_request(kept.target.key, kept.options).SerializeToString()
        async with asyncio.timeout(kept.policy.timeout_s):
            answer = await self._runtime.call(kept.name, "decide", question)
        replicas = _read(answer)
        kept.failures = 0
        if not kept.stop.is_set():
            self._autoscaler.policy_result(kept.target.key, replicas)

    async def _end(self, name: str) -> None:
        """Should it fail, the process is a stray from now on."""
        try:
            await self._runtime.kill(name)
        except ActorCallError as error:
            logger.warning("%s could not be killed: %s", name, error)

    def _record_failure(self, kept: _Policy, problem: str, *, is_over: bool = False) -> None:
        """`is_over`: its process is at its end."""
        kept.failures += 1
        text = f"{kept.policy.function} failed: {problem[:_PROBLEM_MAX_CHARS]}"
        if is_over:
            text += f"\nIts next process starts in {kept.restart_delay_s:g} s."
        if not kept.stop.is_set():
            self._autoscaler.policy_failed(kept.target.key, text)


class _Policy:
    """A policy that is asked, until `stop`."""

    def __init__(self, target: DeploymentTarget) -> None:
        self.target = target
        self.name = ""
        """Of the actor that is asked now."""
        self.failures = 0
        """In a row."""
        self.short_lives = 0
        """Processes in a row that soon came to an end."""
        self.stop = asyncio.Event()

    @property
    def delay_s(self) -> float:
        """Pause after so many failures."""
        return _RETRY.pause_s(self.failures)

    @property
    def restart_delay_s(self) -> float:
        """Pause before the next process. An answer makes good for failures, not for a process that dies of the next."""
        return _RETRY.pause_s(max(self.failures, self.short_lives))

    @property
    def options(self) -> control_pb2.AutoscalingOptions:
        return self.target.spec.options.autoscaling

    @property
    def policy(self) -> control_pb2.AutoscalingPolicy:
        return self.options.policy

    def spec(self) -> control_pb2.PolicySpec:
        key = self.target.key
        return control_pb2.PolicySpec(
            deployment={"app": key.app, "name": key.name}, policy=self.policy, code_key=self.target.spec.code_key
        )

    def fits(self, target: DeploymentTarget) -> bool:
        """Its process can go on for that target: same function, same code, same environment."""
        own, other = self.target.spec, target.spec
        return (
            own.options.autoscaling.policy == other.options.autoscaling.policy
            and (own.code_key, own.version) == (other.code_key, other.version)
            and own.options.actor.runtime_env_json == other.options.actor.runtime_env_json
        )


def _read(answer: bytes | None) -> float:
    """The user's code shares the process that checks its answers, so what comes from there is checked again."""
    replicas = read_answer(control_pb2.PolicyAnswer, answer).replicas
    if not math.isfinite(replicas):
        raise ActorCallError(f"its process answers {replicas} replicas")
    return replicas


async def _pause(kept: _Policy, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await kept.stop.wait()
