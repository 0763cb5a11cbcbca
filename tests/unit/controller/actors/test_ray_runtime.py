"""mesh.controller.actors.ray_runtime: what Ray raises becomes what the keepers know: an actor that is gone, or not."""

import asyncio
import time
from typing import Any

import pytest
import ray.exceptions

from mesh.cluster import ray_core
from mesh.controller.actors.cluster_runtime import ActorCallError, ActorDiedError, ActorUnreachableError
from mesh.controller.actors.ray_runtime import RayRuntime


class Failing:
    """Stands for the handle of an actor, and for its method."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.wait_closed = self

    async def remote(self) -> None:
        raise self._error


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
    error: Exception, expected: type[ActorCallError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death is noticed immediately, whatever killed the process (item 150)."""
    found: Any = Failing(error)
    monkeypatch.setattr(ray_core, "find_actor", lambda name: found)
    with pytest.raises(ActorCallError) as caught:
        asyncio.run(RayRuntime(time.monotonic, time.time).call("MESH_REPLICA::a#b#c", "wait_closed"))
    assert type(caught.value) is expected
