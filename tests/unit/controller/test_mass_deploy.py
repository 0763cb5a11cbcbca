"""The whole turn that begins 10,000 starts: the control loop as it is, with the store in memory and Ray in threads.

It is measured as the budgets of `test_scale.py` are: CPU time of the loop's thread in seconds of an idle core.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mesh.cluster import ray_core, ray_placement
from mesh.controller.actors.ray_runtime import RayRuntime
from mesh.controller.control_loop import ControlLoop
from mesh.controller.event_log import EventLog
from mesh.controller.own_changes import Clocks
from mesh.controller.report.publisher import Publisher
from mesh.controller.store.desired_store import StateStore
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.unit.controller.cpu_time import measured
from tests.unit.controller.dict_kv import DictKeyValue
from tests.unit.controller.ten_thousand import NODES, NOW_S, SHAPES, wanted_state

GATEWAYS = control_pb2.GatewayOptions(grpc_port=9000)


class Ray:
    """What threads ask of it. Actors start when `goes_on` is set."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.asked: list[str] = []
        """Names of the actors that it was asked to start."""

    def spawn_actor(self, *_: object, name: str, **__: object) -> None:
        self.asked.append(name)
        self.goes_on.wait(60)

    def list_node_states(self) -> list[ray_placement.NodeState]:
        return [
            ray_placement.NodeState(
                node_id=node.node_id,
                is_head=node.is_head,
                address="10.0.0.1",
                total=dict(node.total),
                available=dict(node.available),
                ends_unix_s=None,
            )
            for node in NODES
        ]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    monkeypatch.setattr(ray_core, "spawn_actor", fake.spawn_actor)
    monkeypatch.setattr(ray_core, "find_actor", lambda name: None)
    monkeypatch.setattr(ray_core, "list_actor_names", list)
    monkeypatch.setattr(ray_placement, "list_node_states", fake.list_node_states)
    return fake


@contextmanager
def events() -> Iterator[EventLog]:
    """Of all that the mesh logs, and nothing else is done with that."""
    log, kept = logging.getLogger("mesh"), EventLog(lambda: 1.0)
    handlers, level = log.handlers, log.level
    log.handlers, log.propagate = [kept], False
    log.setLevel(logging.INFO)
    try:
        yield kept
    finally:
        log.handlers, log.propagate = handlers, True
        log.setLevel(level)


class Tasks:
    """Those of a controller. They end with it."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def controller(state: control_pb2.DesiredState, tasks: Tasks) -> ControlLoop:
    """One that starts while this is stored, and nothing runs."""
    kv, numbers = DictKeyValue(), itertools.count()
    StateStore(kv).save(state)
    clock = lambda: NOW_S  # noqa: E731 - a clock that stands still
    runtime = RayRuntime(clock, clock)
    return ControlLoop(
        StateStore(kv),
        runtime,
        Publisher(1),
        clocks=Clocks(clock, clock),
        new_id=lambda: f"i{next(numbers)}",
        spawn_task=tasks.spawn,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_turn_that_begins_ten_thousand_starts(shape: tuple[int, int, int], ray: Ray) -> None:
    """0.3 s for all of it: it lists the nodes, plans, judges, begins the starts, logs them as events, and publishes."""

    async def main() -> float:
        tasks = Tasks()
        loop = controller(wanted_state(shape), tasks)
        await loop._wanted.load(GATEWAYS)
        try:
            with measured() as spent:
                assert await loop._try_turn()
                await asyncio.sleep(0)
            assert sum(len(app.deployments) for app in loop.status().applications) == shape[0] * shape[1]
            assert len(loop.picture().observed.replicas) == 10_000
            # The others wait without a task: they are there, and nothing of Ray is asked for them yet.
            assert len(tasks) < settings().controller.starts_max + 10
        finally:
            ray.goes_on.set()
            await tasks.end()
        return spent.s

    with events() as kept:
        least_s = min(asyncio.run(main()) for _ in range(2))
        assert least_s < 0.3
        assert any(event.text.startswith("starting ") for event in kept.since(0))
