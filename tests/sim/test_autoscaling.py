"""The whole controller under changing load, in fake time: to and from zero, crashes, policies (items 183, 227–234)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.cluster.keys import POLICY_PREFIX
from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.v1 import control_pb2
from tests.sim.fake_actor import Actor
from tests.sim.fake_cluster import FakeCluster
from tests.sim.fake_mesh import Mesh
from tests.sim.traffic import Caller


@asynccontextmanager
async def booted(seed: int = 1) -> AsyncIterator[Mesh]:
    """A mesh that leaves nothing when it is shut down at the end."""
    mesh = Mesh(seed)
    await mesh.boot()
    yield mesh
    await mesh.shut_down()
    await mesh.until(lambda: not mesh.loop.status().applications and not mesh.cluster.actors)
    await mesh.crash()
    assert not mesh.failed


def rules(**fields: Any) -> control_pb2.AutoscalingOptions:
    return AutoscalingConfig(**{"min_replicas": 0, "max_replicas": 20, "downscale_delay_s": 60, **fields}).to_message()


def deployment(mesh: Mesh) -> control_pb2.DeploymentStatus:
    return mesh.loop.status().applications[0].deployments[0]


def seen(mesh: Mesh) -> tuple[str, str]:
    return deployment(mesh).status, deployment(mesh).trigger


def has(mesh: Mesh, count: int) -> Callable[[], bool]:
    """Exactly this number of replicas serves, and the status agrees."""

    def look() -> bool:
        if not count == len(mesh.cluster.replicas()) == len(mesh.cluster.serving()):
            return False
        present = deployment(mesh)
        return present.target_replicas == count and present.status == "HEALTHY"

    return look


@pytest.mark.parametrize("seed", range(5))
async def test_from_zero_to_many_to_zero_again_and_again(seed: int) -> None:
    """Zero is left immediately and reached from one (item 231)."""
    async with booted(seed) as mesh:
        await mesh.deploy("v1", 0, rules())
        await mesh.until(has(mesh, 0))
        assert mesh.app_status() == "RUNNING"
        caller = Caller(mesh)
        for requests, replicas in ((1, 1), (30, 15), (7, 4)):
            began_at_s = asyncio.get_running_loop().time()
            caller.report(requests)
            await mesh.until(lambda: bool(mesh.cluster.replicas()), within_s=0.5)
            await mesh.until(lambda: bool(mesh.cluster.serving()), within_s=10.0)
            await mesh.until(has(mesh, replicas), within_s=200.0)
            assert asyncio.get_running_loop().time() - began_at_s < 120
            caller.report(0)
            await mesh.until(has(mesh, 0), within_s=400.0)


async def test_scaling_has_its_own_trigger_and_tells_why() -> None:
    """The application stays RUNNING (items 195, 196)."""
    async with booted() as mesh:
        await mesh.deploy("v1", 0, rules(min_replicas=1))
        await mesh.until(has(mesh, 1))
        caller = Caller(mesh)
        caller.report(10)
        await mesh.until(lambda: seen(mesh) == ("UPSCALING", "AUTOSCALING"))
        assert "Autoscaling: target 5: 10 requests" in deployment(mesh).message
        assert mesh.app_status() == "RUNNING"
        await mesh.until(has(mesh, 5))
        assert seen(mesh) == ("HEALTHY", "UPSCALE_COMPLETED")
        caller.report(1)
        await mesh.until(lambda: seen(mesh) == ("DOWNSCALING", "AUTOSCALING"), within_s=400.0)
        await mesh.until(has(mesh, 1))
        assert seen(mesh) == ("HEALTHY", "DOWNSCALE_COMPLETED")


@pytest.mark.parametrize("leave", [Caller.crash, Caller.fall_silent])
async def test_callers_that_are_gone_pin_no_replicas(leave: Callable[[Caller], None]) -> None:
    """That holds whether their end is seen or not (item 233)."""
    async with booted() as mesh:
        await mesh.deploy("v1", 0, rules())
        gone, staying = Caller(mesh, "gone"), Caller(mesh, "staying")
        gone.report(20)
        staying.report(4)
        await mesh.until(has(mesh, 12), within_s=200.0)
        leave(gone)
        await mesh.until(has(mesh, 2), within_s=250.0)
        assert seen(mesh) == ("HEALTHY", "DOWNSCALE_COMPLETED")


@pytest.mark.parametrize("seed", range(5))
async def test_a_controller_that_crashes_keeps_the_number(seed: int) -> None:
    """No replica stops only because no report has come yet (item 183)."""
    async with booted(seed) as mesh:
        await mesh.deploy("v1", 0, rules(downscale_delay_s=0, upscale_delay_s=5, look_back_period_s=5))
        caller = Caller(mesh)
        caller.report(16)
        await mesh.until(has(mesh, 8), within_s=200.0)
        for _ in range(5):
            await asyncio.sleep(mesh.cluster.random.uniform(0, 20))
            serving = set(mesh.cluster.serving())
            await mesh.crash()
            await asyncio.sleep(mesh.cluster.random.uniform(0, 5))
            await mesh.boot()
            # Its stream opens again after a while.
            await asyncio.sleep(mesh.cluster.random.uniform(0, 3))
            caller.report(16)
            await asyncio.sleep(30)
            assert set(mesh.cluster.serving()) == serving
        caller.report(0)
        await mesh.until(has(mesh, 0), within_s=100.0)


async def test_calls_that_wait_for_the_first_replica_are_served_by_a_controller_that_has_just_started() -> None:
    async with booted() as mesh:
        await mesh.deploy("v1", 0, rules())
        await mesh.until(has(mesh, 0))
        await mesh.crash()
        await mesh.boot()
        Caller(mesh).report(1)
        await mesh.until(lambda: bool(mesh.cluster.serving()), within_s=10.0)
        assert len(mesh.cluster.replicas()) == 1


async def test_an_update_keeps_the_number() -> None:
    """A redeployment begins with the present number (item 234)."""
    async with booted() as mesh:
        await mesh.deploy("v1", 0, rules())
        caller = Caller(mesh)
        caller.report(12)
        await mesh.until(has(mesh, 6), within_s=200.0)
        await mesh.deploy("v2", 0, rules())
        await mesh.until(lambda: len(mesh.cluster.serving("v2")) == 6)
        await mesh.until(has(mesh, 6))
        await mesh.deploy("v2", 0, rules(max_replicas=4))
        await mesh.until(has(mesh, 4))
        assert len(mesh.cluster.serving("v2")) == 4


async def test_a_first_replica_that_cannot_start_fails_the_waiting_calls() -> None:
    async with booted() as mesh:
        mesh.cluster.broken_versions = {"v1"}
        await mesh.deploy("v1", 0, rules())
        await mesh.until(has(mesh, 0))
        Caller(mesh).report(1)
        await mesh.until(lambda: seen(mesh) == ("UNHEALTHY", "REPLICA_STARTUP_FAILED"))
        assert deployment(mesh).message.startswith("ValueError: no model.")


# ---- Policies --------------------------------------------------------------------------------------------------------


def with_policy(**fields: Any) -> control_pb2.AutoscalingOptions:
    policy = {"policy_function": "shop.scaling:decide", "timeout_s": 5.0}
    return rules(policy=policy, upscale_delay_s=0, metrics_interval_s=1.0, **fields)


async def test_a_policy_is_asked_again_and_again() -> None:
    async with booted() as mesh:
        questions: list[control_pb2.PolicyQuestion] = []

        async def half_the_queue(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            questions.append(question)
            return (question.queued_requests + question.ongoing_requests) / 2

        mesh.cluster.policy = half_the_queue
        await mesh.deploy("v1", 0, with_policy(min_replicas=1))
        caller = Caller(mesh)
        caller.report(9)
        await mesh.until(has(mesh, 5))
        assert not questions[0].HasField("since_last_decision_s")
        assert questions[-1].since_last_decision_s > 0
        assert (questions[-1].target_replicas, questions[-1].options.max_replicas) == (5, 20)
        assert mesh.cluster.policies_spawned == 1


@pytest.mark.parametrize("fault", ["raises", "hangs", "dies"])
async def test_a_policy_that_fails_is_reported_and_tried_less_and_less(fault: str) -> None:
    async with booted() as mesh:
        is_broken = False

        async def moody(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            if is_broken and fault == "raises":
                raise ActorCallError("ZeroDivisionError: division by zero")
            if is_broken and fault == "hangs":
                await asyncio.sleep(10_000)
            if is_broken:
                mesh.cluster.end(actor)
                await asyncio.sleep(1)
            return 3

        mesh.cluster.policy = moody
        await mesh.deploy("v1", 0, with_policy(min_replicas=1))
        await mesh.until(has(mesh, 3))
        is_broken = True
        await mesh.until(lambda: bool(deployment(mesh).autoscaling.problem))
        assert "shop.scaling:decide failed" in deployment(mesh).message
        spawned = mesh.cluster.policies_spawned
        await asyncio.sleep(3600)
        assert mesh.cluster.policies_spawned - spawned < 80
        assert has(mesh, 3)
        is_broken = False
        await mesh.until(lambda: not deployment(mesh).autoscaling.problem)


async def test_a_policy_whose_processes_die_after_one_answer_is_started_less_and_less() -> None:
    async with booted() as mesh:
        asked: Counter[str] = Counter()
        is_broken = True

        async def mortal(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            asked[actor.name] += 1
            if asked[actor.name] > 1 and is_broken:
                mesh.cluster.end(actor)
                await asyncio.sleep(1)
            return 3

        mesh.cluster.policy = mortal
        await mesh.deploy("v1", 0, with_policy(min_replicas=1))
        await asyncio.sleep(600)
        assert mesh.cluster.policies_spawned < 30
        assert has(mesh, 3)
        await mesh.until(lambda: "Its next process starts in 60 s" in deployment(mesh).autoscaling.problem)
        is_broken = False
        spawned = mesh.cluster.policies_spawned
        await asyncio.sleep(600)
        assert not deployment(mesh).autoscaling.problem
        assert mesh.cluster.policies_spawned <= spawned + 1


async def test_the_status_says_what_a_policy_s_next_process_does() -> None:
    """It waits, it has not answered yet, and that of a corrected version has no problem so far."""
    async with booted() as mesh:
        asked: list[str] = []

        async def slower_and_slower(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            asked.append(actor.name)
            if len(asked) == 1:
                mesh.cluster.end(actor)
            await asyncio.sleep(4.0)
            return 3

        mesh.cluster.policy = slower_and_slower
        await mesh.deploy("v1", 0, with_policy(min_replicas=1))
        await mesh.until(lambda: "its process ended" in deployment(mesh).autoscaling.problem)
        assert deployment(mesh).autoscaling.problem.endswith("\nIts next process starts in 0.25 s.")
        await mesh.until(lambda: len(asked) == 2)
        assert "its process ended" in deployment(mesh).autoscaling.problem
        assert deployment(mesh).autoscaling.problem.endswith("\nIts next process has not answered yet.")
        await mesh.until(has(mesh, 3))
        assert deployment(mesh).autoscaling.problem == ""
        asked.clear()
        await mesh.until(lambda: bool(deployment(mesh).autoscaling.problem))
        await mesh.deploy("v2", 0, with_policy(min_replicas=1))
        await mesh.until(lambda: len(set(asked)) > 1)
        assert deployment(mesh).autoscaling.problem == ""
        assert "the policy shop.scaling:decide asks for 3" in deployment(mesh).autoscaling.decision


async def test_an_answer_that_is_no_number_does_not_reach_the_rules() -> None:
    async with booted() as mesh:

        async def nonsense(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            return float("nan")

        mesh.cluster.policy = nonsense
        await mesh.deploy("v1", 0, with_policy(min_replicas=1))
        await mesh.until(has(mesh, 1))
        await mesh.until(lambda: "answers nan replicas" in deployment(mesh).autoscaling.problem)
        await asyncio.sleep(60.0)
        assert has(mesh, 1)()


async def test_every_policy_has_one_process_as_long_as_it_is_wanted() -> None:
    """Not in the way of an update, and ended with its controller, its deployment and when another takes its place."""
    async with booted() as mesh:

        async def two(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            return 2

        def one_is_there() -> bool:
            return len(mesh.cluster.policies()) == 1

        mesh.cluster.policy = two
        await mesh.deploy("v1", 0, with_policy())
        await mesh.until(has(mesh, 2))
        (first,) = mesh.cluster.policies()
        await mesh.deploy("v1", 0, with_policy(max_replicas=9))
        await asyncio.sleep(5)
        assert mesh.cluster.policies() == [first]
        await mesh.crash()
        await mesh.boot()
        await mesh.until(lambda: one_is_there() and mesh.cluster.policies() != [first])
        (second,) = mesh.cluster.policies()
        await mesh.deploy("v2", 0, with_policy())
        await mesh.until(lambda: one_is_there() and mesh.cluster.policies() != [second])
        (third,) = mesh.cluster.policies()
        edited = with_policy()
        edited.policy.source_digest = "another"
        await mesh.deploy("v2", 0, edited)
        await mesh.until(lambda: one_is_there() and mesh.cluster.policies() != [third])
        await mesh.deploy("v2", 0, rules())
        await mesh.until(lambda: not mesh.cluster.policies())
        await mesh.deploy("v2", 0, with_policy())
        await mesh.until(one_is_there)
        await mesh.delete()
        await mesh.until(lambda: not mesh.cluster.policies())


class Immortal(FakeCluster):
    """The kill of the first policy is not answered."""

    is_asked = False

    async def kill(self, name: str) -> None:
        if name.startswith(POLICY_PREFIX) and not self.is_asked:
            self.is_asked = True
            await asyncio.Event().wait()
        await super().kill(name)


async def test_a_policy_whose_process_cannot_be_killed_gets_another_one() -> None:
    mesh = Mesh(1, cluster=(cluster := Immortal(seed=1)))
    await mesh.boot()

    async def hang_once(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
        await asyncio.sleep(0.0 if cluster.is_asked else 10_000.0)
        return 3

    cluster.policy = hang_once
    await mesh.deploy("v1", 0, with_policy(min_replicas=1))
    await mesh.until(has(mesh, 3))
    assert deployment(mesh).autoscaling.problem == ""
    await mesh.until(lambda: len(cluster.policies()) == 1)
    assert not mesh.failed
    await mesh.crash()


async def test_a_policy_that_hangs_does_not_outlive_its_deployment() -> None:
    async with booted() as mesh:

        async def hang(actor: Actor, question: control_pb2.PolicyQuestion) -> float:
            await asyncio.sleep(10_000)
            return 0

        mesh.cluster.policy = hang
        await mesh.deploy("v1", 0, with_policy())
        await mesh.until(lambda: bool(mesh.cluster.policies()))
        await asyncio.sleep(3)
        await mesh.delete()
        await asyncio.sleep(1.0)
        assert not mesh.cluster.policies()
