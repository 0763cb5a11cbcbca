"""Look-ups of applications and handles where applications run in this process only."""

from __future__ import annotations

from typing import Any

import pytest

import mesh
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.testing import RunMeshApp

Handle = mesh.DeploymentHandle[Any]
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look-up of a local application looks for a Ray."""
    monkeypatch.setattr(ray_core, "attach_ray", lambda: pytest.fail("looked for a Ray"))


@mesh.deployment
async def double(number: int) -> int:
    return 2 * number


@mesh.deployment
class Front:
    """Finds what it calls by name."""

    def __init__(self, double: Handle) -> None:
        self.found = mesh.get_deployment_handle("double")

    async def __call__(self, number: int) -> int:
        assert mesh.get_deployment_handle("double") is self.found
        assert mesh.get_app_handle(mesh.get_replica_context().app_name).deployment_name == "Front"
        return int(await self.found.remote(number))


def test_code_of_a_replica_finds_its_own_application(mesh_app: RunMeshApp) -> None:
    """Already in its constructor, and in an application of the fixture too (items 99, 128, 240)."""
    assert mesh_app(Front.bind(double.bind()), name="fixture").handle.remote(2).result(timeout_s=DEADLINE_S) == 4
    assert mesh.get_app_handle("fixture").remote(3).result(timeout_s=DEADLINE_S) == 6
    for _ in range(2):  # the second one takes the place of the first
        handle = mesh.run(Front.bind(double.bind()), _local_testing_mode=True)
        assert handle.remote(4).result(timeout_s=DEADLINE_S) == 8
        assert mesh.get_app_handle("default") is handle
    mesh.delete("default")


def test_what_is_not_there_is_named(mesh_app: RunMeshApp) -> None:
    """As on a mesh, and without a look for one (items 127, 128, 240)."""
    mesh_app(Front.bind(double.bind()), name="shop")
    with pytest.raises(MeshException, match=r"Application 'shpo' does not exist. Did you mean 'shop'"):
        mesh.get_app_handle("shpo")
    with pytest.raises(KeyError, match=r"Application 'shpo' of deployment 'Front' does not exist. Did you mean 'shop'"):
        mesh.get_deployment_handle("Front", "shpo")
    with pytest.raises(KeyError, match=r"Deployment 'Fornt' .* does not exist. Did you mean 'Front'"):
        mesh.get_deployment_handle("Fornt", "shop")


def test_a_look_up_without_a_check_fails_at_the_call(mesh_app: RunMeshApp) -> None:
    """With `_check_exists=False` there is a handle of any name (items 128, 240)."""
    mesh_app(double.bind(), name="shop")
    unknown = mesh.get_deployment_handle("tripel", "shop", _check_exists=False)
    assert (unknown.deployment_name, unknown.app_name) == ("tripel", "shop")
    with pytest.raises(MeshException, match="Deployment 'tripel' of application 'shop' does not exist"):
        unknown.remote(1)


@mesh.deployment
class Watcher:
    """Remembers the status as it was in its constructor."""

    def __init__(self, double: Handle) -> None:
        self.at_start = mesh.status()

    async def statuses(self) -> tuple[Any, Any]:
        return self.at_start, mesh.status()


def test_the_status_has_local_applications(mesh_app: RunMeshApp) -> None:
    """From the start on, with one replica of each deployment (items 126, 240)."""
    mesh_app(double.bind(), name="other")
    app = mesh_app(Watcher.bind(double.bind()), name="watched")
    at_start, now = app.handle.statuses.remote().result(timeout_s=DEADLINE_S)
    before, after = (each.applications["watched"] for each in (at_start, now))
    assert list(now.applications) == ["other", "watched"]
    assert (before.status, after.status) == ("DEPLOYING", "RUNNING")
    assert {name: each.status for name, each in before.deployments.items()} == {
        "double": "HEALTHY",
        "Watcher": "UPDATING",
    }
    watcher = after.deployments["Watcher"]
    assert (watcher.status, watcher.replica_states, watcher.busy, watcher.places) == ("HEALTHY", {"RUNNING": 1}, 1, 5)
    assert list(watcher.replicas) == ["Watcher-local"]
    assert after.last_deployed_time_s >= now.applications["other"].last_deployed_time_s > 0
    app.close()
    assert list(mesh.status().applications) == ["other"]
