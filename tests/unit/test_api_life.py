"""mesh.api: status, delete, shutdown and look-ups of handles, on a fake cluster (items 73–76, 126–129)."""

import asyncio
from typing import Any

import pytest

import mesh
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_NAME, TOKEN_KEY
from mesh.context import ReplicaContext, set_replica_context
from mesh.exceptions import MeshException
from mesh.status import MeshStatus
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster


@mesh.deployment
class Model:
    def __init__(self, *args: Any) -> None: ...

    def __call__(self) -> None: ...


# ---- status, delete, shutdown ----------------------------------------------------------------------------------------


def test_the_status_without_a_mesh_is_empty(cluster: FakeCluster) -> None:
    """`status` never raises for want of a mesh (item 126)."""
    assert mesh.status() == MeshStatus()
    cluster.is_there = False
    assert mesh.status() == MeshStatus()


def test_delete_removes_the_application_and_does_not_mind_an_unknown_one(cluster: FakeCluster) -> None:
    """Deleting twice is not an error (item 76)."""
    mesh.run(Model.bind(), name="shop")
    mesh.delete("shop")
    assert mesh.status().applications == {}
    mesh.delete("shop")


def test_delete_needs_a_mesh(cluster: FakeCluster) -> None:
    """Without a mesh `delete` raises (item 76)."""
    with pytest.raises(MeshException, match="There is no mesh instance"):
        mesh.delete("shop")


def test_shutdown_without_a_mesh_does_nothing(cluster: FakeCluster) -> None:
    """`shutdown` never raises for want of a mesh (item 60)."""
    before = mesh.status()
    mesh.shutdown()
    assert mesh.status() == before
    cluster.is_there = False
    mesh.shutdown()


def test_a_shutdown_ends_what_an_interrupted_one_has_left_without_a_controller(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a second Ctrl-C: its replicas would run on, and hold their resources (item 60)."""
    mesh.run(Model.bind())
    cluster.kv[TOKEN_KEY] = b"old"
    cluster.actors["MESH_REPLICA::1"] = FakeActor()

    def kill_first(actor: FakeActor) -> None:
        del cluster.actors[CONTROLLER_NAME]
        raise KeyboardInterrupt

    kill = ray_core.kill_actor
    monkeypatch.setattr(ray_core, "kill_actor", kill_first)
    with pytest.raises(KeyboardInterrupt):
        mesh.shutdown()
    monkeypatch.setattr(ray_core, "kill_actor", kill)
    assert list(cluster.actors) == ["MESH_REPLICA::1"]
    mesh.shutdown()
    assert (cluster.actors, cluster.kv) == ({}, {})


def test_a_shutdown_may_be_awaited(cluster: FakeCluster) -> None:
    """It leaves as little (item 60)."""
    mesh.run(Model.bind())
    asyncio.run(mesh.shutdown_async())
    assert (cluster.actors, cluster.kv) == ({}, {})
    asyncio.run(mesh.shutdown_async())


def test_a_start_after_a_shutdown_works(cluster: FakeCluster) -> None:
    """A shutdown leaves nothing that would hinder the next start (item 60)."""
    mesh.run(Model.bind())
    mesh.shutdown()
    assert (cluster.actors, cluster.kv) == ({}, {})
    mesh.run(Model.bind(), name="again")
    assert list(mesh.status().applications) == ["again"]


# ---- handles ---------------------------------------------------------------------------------------------------------


def test_handle_look_ups_need_a_mesh(cluster: FakeCluster) -> None:
    """Look-ups without a mesh raise (item 127)."""
    with pytest.raises(MeshException, match="There is no mesh instance"):
        mesh.get_app_handle("shop")
    with pytest.raises(MeshException, match="There is no mesh instance"):
        mesh.get_deployment_handle("Model", "shop")


def test_the_app_handle_is_the_ingress(cluster: FakeCluster) -> None:
    """An unknown application raises (item 127)."""
    mesh.run(Model.options(name="Front").bind(Model.bind()), name="shop")
    assert mesh.get_app_handle("shop").deployment_name == "Front"
    with pytest.raises(MeshException, match=r"Application 'x' does not exist\."):
        mesh.get_app_handle("x")


def test_a_deployment_handle_is_found_by_name(cluster: FakeCluster) -> None:
    """An unknown deployment or application raises KeyError (item 128)."""
    mesh.run(Model.options(name="Front").bind(Model.bind()), name="shop")
    assert mesh.get_deployment_handle("Model", "shop").deployment_name == "Model"
    with pytest.raises(KeyError, match="Nothing"):
        mesh.get_deployment_handle("Nothing", "shop")
    with pytest.raises(KeyError, match="other"):
        mesh.get_deployment_handle("Model", "other")
    with pytest.raises(KeyError, match="Did you mean 'Model'"):
        mesh.get_deployment_handle("Modell", "shop")
    with pytest.raises(MeshException, match="Did you mean 'shop'"):
        mesh.get_app_handle("shopp")
    assert mesh.get_deployment_handle("Nothing", "shop", _check_exists=False).deployment_name == "Nothing"


def test_outside_of_a_replica_the_application_has_to_be_named(cluster: FakeCluster) -> None:
    """There is no default application outside of a replica (item 128)."""
    with pytest.raises(MeshException, match="app_name"):
        mesh.get_deployment_handle("Model")


def test_inside_of_a_replica_its_own_application_is_meant(cluster: FakeCluster) -> None:
    """In a replica `app_name` may be left out (item 128)."""
    mesh.run(Model.bind(), name="shop")
    set_replica_context(ReplicaContext("shop", "Model", "r1"))
    try:
        assert mesh.get_deployment_handle("Model").app_name == "shop"
    finally:
        set_replica_context(None)


def test_repeated_look_ups_return_the_same_object(cluster: FakeCluster) -> None:
    """Handles are cached until the mesh ends (item 129)."""
    mesh.run(Model.bind(), name="shop")
    handle = mesh.get_app_handle("shop")
    assert mesh.get_app_handle("shop") is handle
    assert mesh.get_deployment_handle("Model", "shop") is handle
    mesh.shutdown()
    mesh.run(Model.bind(), name="shop")
    assert mesh.get_app_handle("shop") is not handle


def test_run_without_a_name_replaces_the_default_application_and_no_other_one(cluster: FakeCluster) -> None:
    """Other applications stay (item 69, C7)."""
    mesh.run(Model.bind(), name="shop", route_prefix="/shop")
    mesh.run(Model.bind())
    mesh.run(Model.options(name="Other").bind())
    assert mesh.get_app_handle("shop").deployment_name == "Model"
    assert mesh.get_app_handle("default").deployment_name == "Other"


@pytest.mark.parametrize("of", ["run", "get_app_handle", "get_deployment_handle"])
def test_a_handle_that_a_function_gave_can_be_initialized_once(cluster: FakeCluster, of: str) -> None:
    """Before its first use (items 17, 129, D3)."""
    handle = mesh.run(Model.bind(), name="shop")
    if of != "run":
        handle = mesh.get_app_handle("shop") if of == "get_app_handle" else mesh.get_deployment_handle("Model", "shop")
    handle._init(_prefer_local_routing=True)
    assert handle.init_options._prefer_local_routing
    with pytest.raises(RuntimeError, match="once"):
        handle._init()


def test_there_is_no_replica_context_outside_of_a_replica() -> None:
    """Outside of a replica the context raises (item 130)."""
    with pytest.raises(MeshException):
        mesh.get_replica_context()
