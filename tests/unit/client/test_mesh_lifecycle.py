"""mesh.client.mesh_lifecycle: finding, starting and ending the mesh of a cluster."""

import pytest

from mesh.client import mesh_lifecycle
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster, client_settings
from tests.unit.protos import shop_pb2_grpc


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster


def test_there_is_no_mesh_without_a_cluster(cluster: FakeCluster) -> None:
    cluster.is_there = False
    assert mesh_lifecycle.find() is None


def test_there_is_no_mesh_without_a_controller(cluster: FakeCluster) -> None:
    """`find` answers None, `require` raises (item 127)."""
    assert mesh_lifecycle.find() is None
    with pytest.raises(MeshException, match=r"There is no mesh instance running on this Ray cluster"):
        mesh_lifecycle.require()


def test_a_started_mesh_is_found(cluster: FakeCluster) -> None:
    client = mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")
    assert mesh_lifecycle.find() is client
    assert mesh_lifecycle.require() is client


def test_servicer_functions_reach_later_drivers(cluster: FakeCluster) -> None:
    """Another driver finds what `start` was given (item 55)."""
    assert mesh_lifecycle.servicer_functions() == ()
    add = shop_pb2_grpc.add_ShopServicer_to_server
    packed = mesh_lifecycle.packed_servicer_functions(
        ["tests.unit.protos.shop_pb2_grpc.add_StockServicer_to_server", add]
    )
    mesh_lifecycle.start(control_pb2.GatewayOptions(), packed)
    assert mesh_lifecycle.servicer_functions() == (shop_pb2_grpc.add_StockServicer_to_server, add)


def test_a_start_gives_up_on_a_controller_that_keeps_restarting(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarting(reference: object, timeout_s: float) -> None:
        raise ray_core.ActorUnavailable("restarting", b"\0" * 16)

    monkeypatch.setattr(ray_core, "get_object", restarting)
    monkeypatch.setattr(mesh_lifecycle, "settings", lambda: client_settings(start_timeout_s=0.0))
    with pytest.raises(TimeoutError, match="was not ready within 0 s"):
        mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")


def test_destroying_leaves_no_actor_and_no_key_of_the_mesh(cluster: FakeCluster) -> None:
    """Actors of users stay (item 60)."""
    controller = cluster.run_controller()
    cluster.actors["MESH_REPLICA::stuck"] = FakeActor()
    cluster.actors["counter of the user"] = FakeActor()
    cluster.kv["controller/state"] = b"x"
    mesh_lifecycle.destroy(controller)  # type: ignore[arg-type]
    assert list(cluster.actors) == ["counter of the user"]
    assert cluster.kv == {}
    assert controller.is_closed


def test_a_mesh_whose_controller_refuses_to_end_is_killed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown never leaves a mesh behind (item 60)."""
    controller = cluster.run_controller()

    def refuse() -> None:
        raise MeshException("not now")

    monkeypatch.setattr(controller, "shutdown", refuse)
    mesh_lifecycle.destroy(controller)  # type: ignore[arg-type]
    assert cluster.actors == {}


def test_polling_ends_with_the_answer_or_with_its_time() -> None:
    answers = iter([False, False, True])
    assert mesh_lifecycle.poll(lambda: next(answers), 5) is True
    assert mesh_lifecycle.poll(lambda: False, 0) is False
