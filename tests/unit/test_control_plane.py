"""mesh.control_plane: finding, starting and ending the mesh of a cluster."""

import pytest

from mesh import control_plane, ray_core
from mesh.exceptions import MeshException
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster
from tests.unit.protos import shop_pb2_grpc


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster


def test_there_is_no_mesh_without_a_cluster(cluster: FakeCluster) -> None:
    cluster.is_there = False
    assert control_plane.find() is None


def test_there_is_no_mesh_without_a_controller(cluster: FakeCluster) -> None:
    """Item 127."""
    assert control_plane.find() is None
    with pytest.raises(MeshException, match=r"There is no mesh instance running on this Ray cluster"):
        control_plane.require()


def test_a_started_mesh_is_found(cluster: FakeCluster) -> None:
    client = control_plane.start(control_pb2.GatewayOptions(), b"")
    assert control_plane.find() is client
    assert control_plane.require() is client


def test_servicer_functions_reach_later_drivers(cluster: FakeCluster) -> None:
    """Item 55."""
    assert control_plane.servicer_functions() == ()
    add = shop_pb2_grpc.add_ShopServicer_to_server
    packed = control_plane.packed_servicer_functions(
        ["tests.unit.protos.shop_pb2_grpc.add_StockServicer_to_server", add]
    )
    control_plane.start(control_pb2.GatewayOptions(), packed)
    assert control_plane.servicer_functions() == (shop_pb2_grpc.add_StockServicer_to_server, add)


def test_a_controller_that_restarts_for_ever_is_not_waited_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarting(reference: object, timeout_s: float) -> None:
        raise ray_core.ActorUnavailable("restarting", b"\0" * 16)

    monkeypatch.setattr(ray_core, "get_object", restarting)
    monkeypatch.setattr(control_plane, "_START_TIMEOUT_S", 0.0)
    with pytest.raises(TimeoutError, match="was not ready within 60 s"):
        control_plane.start(control_pb2.GatewayOptions(), b"")


def test_destroying_leaves_no_actor_and_no_key_of_the_mesh(cluster: FakeCluster) -> None:
    """Item 60."""
    controller = cluster.run_controller()
    cluster.actors["MESH_REPLICA::stuck"] = FakeActor()
    cluster.actors["counter of the user"] = FakeActor()
    cluster.kv["controller/state"] = b"x"
    control_plane.destroy(controller)  # type: ignore[arg-type]
    assert list(cluster.actors) == ["counter of the user"]
    assert cluster.kv == {}
    assert controller.is_closed


def test_a_mesh_whose_controller_refuses_to_end_is_killed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 60."""
    controller = cluster.run_controller()

    def refuse() -> None:
        raise MeshException("not now")

    monkeypatch.setattr(controller, "shutdown", refuse)
    control_plane.destroy(controller)  # type: ignore[arg-type]
    assert cluster.actors == {}


def test_polling_ends_with_the_answer_or_with_its_time() -> None:
    answers = iter([False, False, True])
    assert control_plane.poll(lambda: next(answers), 5) is True
    assert control_plane.poll(lambda: False, 0) is False
