"""mesh.client.mesh_lifecycle: finding, starting and ending the mesh of a cluster."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from mesh.client import mesh_erasure, mesh_lifecycle
from mesh.client.polling import poll
from mesh.cluster import ray_core
from mesh.cluster.keys import CONTROLLER_NAME, ERASURE_KEY, SERVICER_FUNCTIONS_KEY, STATE_KEY, TOKEN_KEY
from mesh.exceptions import ChangeConflictError, MeshException
from mesh.v1 import control_pb2
from mesh.wire.mesh_token import mesh_id
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster, client_settings
from tests.unit.protos import shop_pb2_grpc


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


def test_a_start_beside_another_one_takes_no_servicer_functions_from_it(cluster: FakeCluster) -> None:
    """Both have found no mesh, and the other one is faster (item 55)."""
    cluster.run_controller()
    cluster.kv[SERVICER_FUNCTIONS_KEY] = b"of the other"
    mesh_lifecycle.start(control_pb2.GatewayOptions(), b"of this one")
    assert cluster.kv == {SERVICER_FUNCTIONS_KEY: b"of the other"}


def test_a_start_removes_what_an_interrupted_shutdown_has_left_without_a_controller(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new controller would go on with the shutdown (item 60)."""
    cluster.kv.update({TOKEN_KEY: b"old", STATE_KEY: b"shutting down"})
    cluster.actors["MESH_REPLICA::old"] = FakeActor()
    spawn = ray_core.spawn_actor

    def watched(*given: Any, **options: Any) -> Any:
        actor = spawn(*given, **options)
        cluster.controller.reply.is_shutting_down = STATE_KEY in cluster.kv
        return actor

    monkeypatch.setattr(ray_core, "spawn_actor", watched)
    client = mesh_lifecycle.start(control_pb2.GatewayOptions(), b"functions")
    assert not client.status().is_shutting_down
    assert list(cluster.actors) == [CONTROLLER_NAME]
    assert cluster.kv == {SERVICER_FUNCTIONS_KEY: b"functions"}


def test_the_controllers_process_has_the_variables_that_were_asked_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its actor's runtime environment, which Ray keeps when it restarts it (item 59)."""
    placements: list[ray_core.ActorPlacement] = []
    spawn = ray_core.spawn_actor

    def watched(*given: Any, placement: ray_core.ActorPlacement, **options: Any) -> Any:
        placements.append(placement)
        return spawn(*given, placement=placement, **options)

    monkeypatch.setattr(ray_core, "spawn_actor", watched)
    mesh_lifecycle.start(control_pb2.GatewayOptions(), b"", {"ZONE": "a"})
    mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")
    assert [each.runtime_env for each in placements] == [{"env_vars": {"ZONE": "a"}}, {}]


def test_a_start_gives_up_on_a_controller_that_keeps_restarting(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarting(reference: object, timeout_s: float) -> None:
        raise ray_core.ActorUnavailable("restarting", b"\0" * 16)

    monkeypatch.setattr(ray_core, "get_object", restarting)
    monkeypatch.setattr(mesh_lifecycle, "settings", lambda: client_settings(start_timeout_s=0.0))
    with pytest.raises(TimeoutError, match="was not ready within 0 s"):
        mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")


def failing_start(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, *answers: Callable[[], Exception]
) -> pytest.ExceptionInfo[MeshException]:
    """The first start of a mesh whose controller answers so; it is given up at the second failure."""
    left, clock_s = list(answers), [1.0]

    def failing(reference: object, timeout_s: float) -> None:
        raise left.pop(0)()

    monkeypatch.setattr(ray_core, "get_object", failing)
    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(time, "sleep", lambda pause_s: clock_s.__setitem__(0, clock_s[0] + pause_s))
    monkeypatch.setattr(mesh_lifecycle, "settings", lambda: client_settings(start_failing_timeout_s=0.0))
    with pytest.raises(MeshException) as caught:
        mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")
    assert left == []
    return caught


def test_a_first_start_that_fails_leaves_nothing_behind(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on with options that do not work, and block a start with better ones."""

    def fail() -> Exception:
        cluster.kv.update({TOKEN_KEY: b"ours", "controller/failure": b"port 9000 is in use"})
        return RuntimeError("from the actor")

    caught = failing_start(cluster, monkeypatch, fail, fail)
    assert "port 9000 is in use" in str(caught.value)
    assert (cluster.actors, cluster.kv) == ({}, {})


def start_another(cluster: FakeCluster) -> None:
    """As another driver does that has ended what does not start."""
    mesh_erasure.erase(cluster.kv.get(TOKEN_KEY, b""))
    cluster.run_controller()
    cluster.kv.update({TOKEN_KEY: b"new", "controller/state": b"new"})


def test_a_start_that_fails_does_not_end_the_mesh_that_another_driver_has_started_since(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own controller was killed by that driver."""

    def fail() -> Exception:
        cluster.kv[TOKEN_KEY] = b"ours"
        return RuntimeError("from the actor")

    def die() -> Exception:
        start_another(cluster)
        return ray_core.ActorDied()

    failing_start(cluster, monkeypatch, fail, die)
    assert list(cluster.actors) == [CONTROLLER_NAME]
    assert cluster.kv == {TOKEN_KEY: b"new", "controller/state": b"new"}


def test_a_start_that_has_failed_for_too_long_ends_no_mesh_but_its_own(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver ends it and starts its own between the last failure and the erasure."""

    def fail() -> Exception:
        cluster.kv[TOKEN_KEY] = b"ours"
        return RuntimeError("from the actor")

    def fail_late() -> Exception:
        start_another(cluster)
        return RuntimeError("from the actor")

    failing_start(cluster, monkeypatch, fail, fail_late)
    assert list(cluster.actors) == [CONTROLLER_NAME]
    assert cluster.kv == {TOKEN_KEY: b"new", "controller/state": b"new"}


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


def test_what_a_controller_starts_while_it_is_killed_is_killed_too(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next mesh would find replicas without a desired state, and refuse to start (item 60)."""
    controller = cluster.run_controller()
    kill = ray_core.kill_actor

    def kill_too_late(actor: FakeActor) -> None:
        if actor is cluster.actors.get(CONTROLLER_NAME):
            cluster.actors["MESH_REPLICA::late"] = FakeActor()
        kill(actor)

    monkeypatch.setattr(ray_core, "kill_actor", kill_too_late)
    mesh_lifecycle.destroy(controller)  # type: ignore[arg-type]
    assert cluster.actors == {}


def test_a_mesh_whose_controller_refuses_to_end_is_killed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown never leaves a mesh behind (item 60)."""
    controller = cluster.run_controller()

    def refuse(mesh_id: bytes, expected: object) -> None:
        raise MeshException("not now")

    monkeypatch.setattr(controller, "shutdown", refuse)
    mesh_lifecycle.destroy(controller)  # type: ignore[arg-type]
    assert cluster.actors == {}


def test_a_shutdown_leaves_alone_the_mesh_that_was_started_meanwhile(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver ended the same mesh, and has started its own before this one is done (item 60)."""
    old = cluster.run_controller()
    cluster.kv[TOKEN_KEY] = b"old"

    def another_is_faster(mesh_id: bytes, expected: object) -> None:
        mesh_erasure.erase(b"old")
        assert cluster.actors == {}
        cluster.run_controller()
        cluster.kv.update({TOKEN_KEY: b"new", "controller/state": b"new"})
        raise MeshException("The controller is gone.")

    monkeypatch.setattr(old, "shutdown", another_is_faster)
    mesh_lifecycle.destroy(old)  # type: ignore[arg-type]
    assert list(cluster.actors) == [CONTROLLER_NAME]
    assert cluster.kv == {TOKEN_KEY: b"new", "controller/state": b"new"}


def test_a_shutdown_names_the_mesh_and_does_not_wait_for_another_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer was lost, and the repeated request reached the next mesh (item 60)."""
    old = cluster.run_controller()
    cluster.kv[TOKEN_KEY] = b"old"
    named: list[bytes] = []

    def end_and_start_another(mesh_id: bytes, expected: object) -> None:
        named.append(mesh_id)
        cluster.kv[TOKEN_KEY] = b"new"
        old.add("shop", "RUNNING")

    monkeypatch.setattr(old, "shutdown", end_and_start_another)
    mesh_lifecycle.destroy(old)  # type: ignore[arg-type]
    assert named == [mesh_id(b"old")]
    assert cluster.kv == {TOKEN_KEY: b"new"}
    assert not caplog.records, "it does not wait until the other mesh is empty"


def test_a_shutdown_that_reaches_another_mesh_kills_nothing(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = cluster.run_controller()
    cluster.kv[TOKEN_KEY] = b"old"

    def refuse(mesh_id: bytes, expected: object) -> None:
        cluster.kv[TOKEN_KEY] = b"new"
        raise ChangeConflictError("The mesh that was to end has ended.")

    monkeypatch.setattr(old, "shutdown", refuse)
    mesh_lifecycle.destroy(old)  # type: ignore[arg-type]
    assert list(cluster.actors) == [CONTROLLER_NAME]
    assert not caplog.records


def test_a_shutdown_leaves_alone_a_mesh_that_has_no_token_yet(cluster: FakeCluster) -> None:
    """The next one: its controller has just been spawned."""
    cluster.run_controller()
    mesh_erasure.erase(b"old")
    assert list(cluster.actors) == [CONTROLLER_NAME]


def test_a_start_waits_until_another_process_has_erased_the_mesh(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kv[ERASURE_KEY] = b"1"
    looks: list[str] = []

    def look(key: str) -> bytes | None:
        looks.append(key)
        if len(looks) == 3:
            del cluster.kv[ERASURE_KEY]
        return cluster.kv.get(key)

    monkeypatch.setattr(ray_core, "kv_get", look)
    mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")
    assert looks[:3] == [ERASURE_KEY] * 3
    assert list(cluster.actors) == [CONTROLLER_NAME]


def test_an_erasure_that_took_the_place_of_an_interrupted_one_is_waited_for_too(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes wait for one that has died: the slower one must not erase beside the faster one."""
    cluster.kv[ERASURE_KEY] = b"1"
    deleted: list[bytes] = []
    monkeypatch.setattr(ray_core, "kv_delete", lambda key: deleted.append(cluster.kv.pop(key)))

    def meanwhile(is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
        if cluster.kv[ERASURE_KEY] == b"1":
            cluster.kv[ERASURE_KEY] = b"2"
        else:
            cluster.kv.clear()
        return is_reached()

    monkeypatch.setattr(mesh_erasure, "poll", meanwhile)
    mesh_erasure.wait_erased()
    assert deleted == []
    assert cluster.kv == {}


def test_an_erasure_that_was_taken_to_be_interrupted_does_not_end_the_next_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kv[TOKEN_KEY] = b"old"

    def slow(is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
        cluster.kv[ERASURE_KEY] = b"of another process"
        return True

    monkeypatch.setattr(mesh_erasure, "poll", slow)
    mesh_erasure.erase(b"old")
    assert cluster.kv == {ERASURE_KEY: b"of another process"}


def test_an_erasure_that_was_interrupted_stops_no_start(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.kv[ERASURE_KEY] = b"1"
    monkeypatch.setattr(mesh_erasure, "settings", lambda: client_settings(shutdown_timeout_s=0.0))
    mesh_lifecycle.start(control_pb2.GatewayOptions(), b"")
    assert ERASURE_KEY not in cluster.kv


def test_polling_ends_with_the_answer_or_with_its_time() -> None:
    answers = iter([False, False, True])
    assert poll(lambda: next(answers), 5) is True
    assert poll(lambda: False, 0) is False


def test_who_has_waited_long_asks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times a second at first, at last once a second."""
    clock_s, asked_at_s = [0.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(time, "sleep", lambda pause_s: clock_s.__setitem__(0, clock_s[0] + pause_s))

    def ask() -> bool:
        asked_at_s.append(clock_s[0])
        return False

    poll(ask, 60)
    pauses = [after - before for before, after in itertools.pairwise(asked_at_s)]
    assert pauses[:10] == pytest.approx([0.05] * 10)
    assert pauses[-10:] == pytest.approx([1.0] * 10)
    assert pauses == pytest.approx(sorted(pauses))
