"""mesh.controller.actors.start_queue: few starts at a time, and none that is not wanted any more."""

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from mesh.cluster import ray_core
from mesh.controller.actors.ray_runtime import RayRuntime
from mesh.controller.actors.start_queue import StartQueue
from mesh.controller.plan.replica_placement import ANYWHERE
from mesh.settings import settings
from mesh.v1 import control_pb2


class Starts:
    """Starts that go on until they may end, and the tasks of their queue."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.queue = StartQueue(self._spawn)
        self.begun: list[str] = []
        self.may_end = asyncio.Event()

    def want(self, count: int, error: Exception | None = None) -> None:
        for number in range(count):
            self.queue.add(f"r{number}", partial(self._start, f"r{number}", error))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.append(asyncio.create_task(work, name=name))

    async def _start(self, name: str, error: Exception | None) -> None:
        self.begun.append(name)
        await self.may_end.wait()
        if error is not None:
            raise error

    async def all_ended(self) -> list[BaseException]:
        self.may_end.set()
        while not all(task.done() for task in self.tasks):
            await asyncio.wait(self.tasks)
        return [error for task in self.tasks if not task.cancelled() and (error := task.exception())]


MOST = settings().controller.starts_max


async def a_moment() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_only_a_few_starts_are_under_way_and_the_others_follow_in_their_order() -> None:
    async def main() -> None:
        starts = Starts()
        starts.want(1000)
        await a_moment()
        assert len(starts.begun) == len(starts.tasks) == MOST
        assert repr(starts.queue) == f"<StartQueue {MOST} under way, {1000 - MOST} waiting>"
        assert not await starts.all_ended()
        assert starts.begun == [f"r{number}" for number in range(1000)]
        assert repr(starts.queue) == "<StartQueue 0 under way, 0 waiting>"

    asyncio.run(main())


def test_a_start_that_is_taken_back_never_begins() -> None:
    """One that has begun cannot be taken back."""

    async def main() -> None:
        starts = Starts()
        starts.want(MOST + 2)
        await a_moment()
        assert not starts.queue.remove("r0")
        assert starts.queue.remove(f"r{MOST}")
        assert not starts.queue.remove(f"r{MOST}")
        await starts.all_ended()
        assert f"r{MOST}" not in starts.begun
        assert f"r{MOST + 1}" in starts.begun

    asyncio.run(main())


def test_a_start_that_fails_lets_the_next_one_begin() -> None:
    async def main() -> None:
        starts = Starts()
        starts.want(3 * MOST, ValueError("a fault of ours"))
        assert len(await starts.all_ended()) == 3 * MOST == len(starts.begun)

    asyncio.run(main())


def test_none_begins_when_the_controller_ends() -> None:
    async def main() -> None:
        starts = Starts()
        starts.want(3 * MOST)
        await a_moment()
        for task in list(starts.tasks):
            task.cancel()
        await a_moment()
        assert len(starts.begun) == len(starts.tasks) == MOST
        assert all(task.cancelled() for task in starts.tasks)

    asyncio.run(main())


def test_a_gateway_does_not_wait_behind_a_mass_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a policy: of a thousand replicas only a few are asked for before them."""
    spawned: list[str] = []
    monkeypatch.setattr(ray_core, "spawn_actor", lambda *_, name, **__: spawned.append(name))

    async def main() -> None:
        runtime, starts = RayRuntime(time.monotonic, time.time), Starts()
        for number in range(1000):
            start = partial(runtime.spawn_replica, f"r{number}", control_pb2.ReplicaSpec(), ANYWHERE)
            starts.queue.add(f"r{number}", start)
        await asyncio.gather(
            runtime.spawn_gateway("gateway", control_pb2.GatewaySpec()),
            runtime.spawn_policy("policy", control_pb2.PolicySpec(), control_pb2.ActorOptions()),
        )
        assert not await starts.all_ended()

    asyncio.run(main())
    assert len(spawned) == 1002
    assert {"gateway", "policy"} <= set(spawned[:100])
