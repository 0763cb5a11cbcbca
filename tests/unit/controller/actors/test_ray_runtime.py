"""mesh.controller.actors.ray_runtime: what Ray raises becomes what the keepers know: an actor that is gone, or not."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from mesh.cluster import ray_core
from mesh.controller.actors.cluster_runtime import (
    ActorCallError,
    ActorDiedError,
    ActorUnreachableError,
    MethodMissingError,
)
from mesh.controller.actors.ray_runtime import IN_EVERY_VERSION, RayRuntime
from tests.released_mesh import RELEASES, Release


class Failing:
    """Stands for the handle of an actor, and for its method."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.wait_closed = self.offer_ports = self.__ray_call__ = self

    async def remote(self, *arguments: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("name", "method"), [("MESH_REPLICA::a#b#c", "wait_closed"), ("MESH_GATEWAY::n", "offer_ports")]
)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ray.exceptions.ActorDiedError(), ActorDiedError),
        (ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."), ActorDiedError),
        (ray.exceptions.ActorUnschedulableError("the node is gone"), ActorDiedError),
        (ray.exceptions.ActorUnavailableError("restarting", b"0" * 16), ActorUnreachableError),
        (ValueError("of the user"), ActorCallError),
    ],
)
def test_what_a_failed_call_says_of_its_actor(
    error: Exception, expected: type[ActorCallError], name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death is noticed immediately, whatever killed the process (item 150).

    Also by a call before which the process is asked whether it has the method.
    """
    found: Any = Failing(error)
    monkeypatch.setattr(ray_core, "find_actor", lambda name: found)
    with pytest.raises(ActorCallError) as caught:
        asyncio.run(RayRuntime(time.monotonic, time.time).call(name, method))
    assert type(caught.value) is expected


class Process:
    """Stands for the handle of an actor, which has all methods, and for its process, which has some of them."""

    def __init__(self, *methods: str) -> None:
        self._methods = methods
        self.calls: list[str] = []

    def __getattr__(self, method: str) -> Any:
        return Method(self, method)


class Method:
    def __init__(self, process: Process, name: str) -> None:
        self._process, self._name = process, name

    async def remote(self, *arguments: Any) -> Any:
        self._process.calls.append(self._name)
        if self._name == "__ray_call__":
            function, *rest = arguments
            return function(SimpleNamespace(**dict.fromkeys(self._process._methods)), *rest)
        assert self._name in self._process._methods, "Ray ends a process that is called by another name"
        return b"answer"


@pytest.mark.parametrize("name", ["MESH_GATEWAY::n1", "MESH_GATEWAY::n1#1#2"])
def test_a_process_of_an_earlier_version_is_not_called_by_a_name_that_it_lacks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handle has the methods of this version: Ray makes it from the class of the process that calls."""
    process = Process("start")
    monkeypatch.setattr(ray_core, "find_actor", lambda _: process)

    async def scenario() -> None:
        runtime = RayRuntime(time.monotonic, time.time)
        assert await runtime.call(name, "start") == b"answer"
        with pytest.raises(MethodMissingError, match="of an earlier version, which has no offer_ports"):
            await runtime.call(name, "offer_ports")

    asyncio.run(scenario())
    assert process.calls == ["start", "__ray_call__"]


def test_a_process_is_asked_once_for_a_method_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another process of that name is asked again."""
    first, second = Process("decide", "decide_application"), Process("decide")
    found = iter([first, second])
    monkeypatch.setattr(ray_core, "find_actor", lambda _: next(found))
    monkeypatch.setattr(ray_core, "kill_actor", lambda _: None)

    async def scenario() -> None:
        runtime = RayRuntime(time.monotonic, time.time)
        for method in ("decide", "decide_application", "decide_application"):
            assert await runtime.call("MESH_POLICY::shop##p", method, b"question") == b"answer"
        await runtime.kill("MESH_POLICY::shop##p")
        with pytest.raises(MethodMissingError):
            await runtime.call("MESH_POLICY::shop##p", "decide_application", b"question")

    asyncio.run(scenario())
    assert first.calls == ["decide", "__ray_call__", "decide_application", "decide_application"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_what_is_called_without_a_question_is_in_every_version(release: Release) -> None:
    """Which may be upgraded from. A method that is new is not among them, however long it takes to be old."""
    assert IN_EVERY_VERSION.keys() == release.methods.keys()
    for kind, methods in IN_EVERY_VERSION.items():
        assert methods <= set(release.methods[kind])
