"""Two drivers that shut down and start the mesh of one cluster at the same time: the new mesh stays whole.

One driver ends the mesh, step by step: each question to the cluster is a step. Before one of them another driver ends
the same mesh and starts its own, and before a later one the controller of that stores its keys.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mesh.client import mesh_lifecycle
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_NAME, ERASURE_KEY, STATE_KEY, TOKEN_KEY
from mesh.exceptions import ChangeConflictError, MeshException
from mesh.v1 import control_pb2
from mesh.wire.mesh_token import mesh_id
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster

STEPS = ("kv_get", "kv_put", "kv_delete", "kv_keys", "find_actor", "list_actor_names", "kill_actor")
NEW_KEYS = {TOKEN_KEY: b"new", STATE_KEY: b"new", "code/1": b"new"}


class SteppedCluster(FakeCluster):
    """Other work can be done before a step of the first driver, unless it holds the erasure: then others wait."""

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.work: list[tuple[int, Callable[[], None]]] = []
        self.ended: list[bytes] = []
        self.run_controller()
        self.actors["MESH_REPLICA::1"] = FakeActor()
        self.kv.update({TOKEN_KEY: b"old", STATE_KEY: b"old", "code/0": b"old"})
        for name in STEPS:
            monkeypatch.setattr(ray_core, name, self._stepped(getattr(ray_core, name)))
        monkeypatch.setattr(mesh_lifecycle, "_client", lambda: Client(self))

    def step(self) -> None:
        self.steps += 1
        while self.work and self.steps >= self.work[0][0] and ERASURE_KEY not in self.kv:
            _, do = self.work.pop(0)
            waiting, self.work = self.work, []  # what it does is not a step of the first driver
            do()
            self.work = waiting

    def _stepped(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            self.step()
            return ask(*arguments, **options)

        return stepped


class Client:
    """Reaches the controller that is there, as one whose connection broke does."""

    def __init__(self, cluster: SteppedCluster) -> None:
        self._cluster = cluster

    def shutdown(self, of_mesh: bytes, expected: Mapping[str, int] | None = None) -> None:
        self._cluster.step()
        token = self._cluster.kv.get(TOKEN_KEY)
        if token is None or CONTROLLER_NAME not in self._cluster.actors:
            raise MeshException("The controller of the mesh did not answer.")
        if of_mesh != mesh_id(token):
            raise ChangeConflictError("The mesh that was to end has ended.")
        self._cluster.ended.append(token)

    def status(self) -> control_pb2.StatusReply:
        self._cluster.step()
        is_ended = self._cluster.kv.get(TOKEN_KEY) in self._cluster.ended
        return control_pb2.StatusReply(applications=[] if is_ended else [control_pb2.ApplicationStatus(name="new")])

    def close(self) -> None:
        pass


def play(begins_at: int, stores_at: int) -> int:
    """Returns how many steps the first driver made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cluster = SteppedCluster()
        cluster.attach(monkeypatch)
        cluster.begin(monkeypatch)

        def end_and_start() -> None:
            mesh_lifecycle.destroy(Client(cluster))  # type: ignore[arg-type]
            mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")

        cluster.work = [(begins_at, end_and_start), (stores_at, lambda: cluster.kv.update(NEW_KEYS))]
        mesh_lifecycle.destroy(Client(cluster))  # type: ignore[arg-type]
        left, cluster.work = cluster.work, []
        for _, do in left:
            do()
        assert list(cluster.actors) == [CONTROLLER_NAME], (begins_at, stores_at)
        assert {key: cluster.kv.get(key) for key in NEW_KEYS} == NEW_KEYS, (begins_at, stores_at)
        assert b"new" not in cluster.ended
        assert ERASURE_KEY not in cluster.kv
        return cluster.steps


def test_no_interleaving_of_two_drivers_harms_the_new_mesh() -> None:
    """Every step of a shutdown, and every later one (item 60)."""
    last = play(1000, 1000)
    assert last > 10
    for begins_at in range(2, last + 1):  # with the first one it reads which mesh it is to end
        for stores_at in range(begins_at, last + 1):
            play(begins_at, stores_at)
