"""mesh.cluster.ray_watch: an ended raylet and an ended GCS are seen at their sockets and processes."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from mesh.cluster.ray_watch import RayWatch, owns_ray


@dataclass
class FakeNode:
    """Stands for the node that Ray keeps for a driver; its daemons are sockets of this test."""

    raylet_socket_name: str
    gcs_address: str
    dead: list[str] = field(default_factory=list)

    def is_head(self) -> bool:
        return True

    def dead_processes(self) -> list[tuple[str, object]]:
        return [(kind, object()) for kind in self.dead]


@dataclass
class FakeRay:
    node: FakeNode
    raylet: socket.socket
    gcs: socket.socket


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    path = str(tmp_path / "raylet")
    with socket.socket(socket.AF_UNIX) as raylet, socket.create_server(("127.0.0.1", 0)) as gcs:
        raylet.bind(path)
        raylet.listen()
        node = FakeNode(path, f"127.0.0.1:{gcs.getsockname()[1]}")
        monkeypatch.setattr(ray._private.worker, "_global_node", node)
        yield FakeRay(node, raylet, gcs)


def test_a_ray_that_is_there_has_not_ended(fake_ray: FakeRay) -> None:
    watch = RayWatch()
    assert not any(watch.has_ended(needs_gcs=True) for _ in range(10))


def test_the_end_of_the_raylet_is_seen_at_once(fake_ray: FakeRay) -> None:
    watch = RayWatch()
    accepted, _ = fake_ray.raylet.accept()
    assert not watch.has_ended(needs_gcs=False)
    fake_ray.raylet.close()
    accepted.close()
    assert watch.has_ended(needs_gcs=False)
    assert RayWatch().has_ended(needs_gcs=False)


def test_a_raylet_that_only_closes_the_connection_has_not_ended(fake_ray: FakeRay) -> None:
    watch = RayWatch()
    for _ in range(3):
        accepted, _ = fake_ray.raylet.accept()
        accepted.close()
        assert not watch.has_ended(needs_gcs=False)


def test_a_silent_gcs_counts_only_if_it_stays_silent_and_is_needed(fake_ray: FakeRay) -> None:
    """A cluster may restart its GCS, and everything goes on."""
    watch = RayWatch()
    fake_ray.gcs.close()
    assert not any(watch.has_ended(needs_gcs=False) for _ in range(10))
    assert [watch.has_ended(needs_gcs=True) for _ in range(3)] == [False, False, True]


def test_a_gcs_that_this_process_has_started_is_not_restarted(fake_ray: FakeRay) -> None:
    watch = RayWatch()
    fake_ray.node.dead.append("log_monitor")
    assert not watch.has_ended(needs_gcs=False)
    fake_ray.node.dead.append("gcs_server")
    assert watch.has_ended(needs_gcs=False)


def test_who_owns_ray_is_known(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    assert owns_ray()
    monkeypatch.setattr(fake_ray.node, "is_head", lambda: False)
    assert not owns_ray()


def test_without_daemons_on_this_machine_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with Ray Client."""
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    assert not owns_ray()
    assert not RayWatch().has_ended(needs_gcs=True)
