"""Handles by name in local applications: in their own code, and in the program around them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mesh
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from mesh.testing import RunMeshApp
from tests.unit.local.conftest import user_threads

Handle = mesh.DeploymentHandle[Any]
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_core, "attach_ray", lambda: pytest.fail("looked for a Ray"))


@pytest.fixture
def shop() -> Iterator[Handle]:
    """Of `mesh.run`, under the name "shop"."""
    yield mesh.run(Front.bind(Price.bind(2)), name="shop", _local_testing_mode=True)
    mesh.delete("shop")
    assert user_threads() == []


@mesh.deployment
class Price:
    def __init__(self, price: int) -> None:
        self.price = price

    def __call__(self) -> int:
        return self.price


@mesh.deployment
class Front:
    """Has the handle of its neighbour in four ways."""

    def __init__(self, bound: Handle) -> None:
        app = mesh.get_replica_context().app_name
        self.handles = {
            "bound": bound,
            "found": mesh.get_deployment_handle("Price"),
            "found in the application": mesh.get_deployment_handle("Price", app),
            "made": mesh.DeploymentHandle("Price", app),
        }
        assert mesh.get_app_handle(app).deployment_name == "Front"

    async def __call__(self) -> dict[str, int]:
        return {name: await handle.remote() for name, handle in self.handles.items()}

    def in_a_thread(self) -> int:
        price: int = mesh.DeploymentHandle("Price", "shop").remote().result(timeout_s=DEADLINE_S)
        return price


def prices(price: int) -> dict[str, int]:
    return dict.fromkeys(("bound", "found", "found in the application", "made"), price)


def test_code_finds_its_own_application(shop: Handle, mesh_app: RunMeshApp) -> None:
    """Also in constructors, and beside others of the same name (items 1, 128)."""
    others = [mesh_app(Front.bind(Price.bind(price)), name="shop") for price in (3, 4)]
    handles = [shop, *(other.handle for other in others)]
    assert [each.remote().result(timeout_s=DEADLINE_S) for each in handles] == [prices(2), prices(3), prices(4)]
    assert [each.in_a_thread.remote().result(timeout_s=DEADLINE_S) for each in handles] == [2, 3, 4]


def test_a_run_replaces_an_application_while_that_is_asked(shop: Handle) -> None:
    """The constructor of the new one finds the new one, although the old one still runs (items 62, 128)."""
    again = mesh.run(Front.bind(Price.bind(7)), name="shop", _local_testing_mode=True)
    assert again.remote().result(timeout_s=DEADLINE_S) == prices(7)


def test_a_handle_that_is_made_by_name_connects_at_its_first_call(shop: Handle) -> None:
    """In any thread; a shutdown of it leaves the others connected (items 1, 12, 16, 18)."""
    made = mesh.DeploymentHandle[Any]("Price", "shop")
    assert not made.running_replicas_populated()
    assert made.remote().result(timeout_s=DEADLINE_S) == 2
    assert made.running_replicas_populated()
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.append(mesh.get_deployment_handle("Price", "shop").remote().result(timeout_s=DEADLINE_S))
    )
    thread.start()
    thread.join(DEADLINE_S)
    assert found == [2]
    made.shutdown()
    assert made.remote().result(timeout_s=DEADLINE_S) == 2
    assert shop.remote().result(timeout_s=DEADLINE_S) == prices(2)


def test_a_handle_that_is_made_by_name_ends_with_its_application(mesh_app: RunMeshApp) -> None:
    """Then only a mesh could have the name (items 1, 12)."""
    app = mesh_app(Price.bind(3), name="own")
    made = mesh.DeploymentHandle[Any]("Price", "own")
    assert made.remote().result(timeout_s=DEADLINE_S) == 3
    app.close()
    made.shutdown()
    with pytest.raises(MeshException, match="not connected to a Ray cluster"):
        made.remote()
