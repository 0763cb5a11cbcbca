"""Web requests to local applications: the tests of the mesh, but for those of its processes and a slow one."""

# ruff: noqa: F403, F405, F821

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.local_ports import local_apps
from mesh.testing import MeshApp, RunMeshApp
from tests.e2e.conftest import Gateway
from tests.e2e.test_web import *

del test_errors_have_their_statuses
del test_large_bodies_take_little_memory
del test_a_client_that_does_not_read_holds_up_nothing


@pytest.fixture(scope="module")
def apps() -> Iterator[RunMeshApp]:
    """The fixture `mesh_app` for the whole module."""
    with local_apps() as run:
        yield run


@pytest.fixture(scope="module")
def gate(apps: RunMeshApp) -> Handle:
    return apps(Gate.bind(), name="web-gate").handle


@pytest.fixture(scope="module")
def shop_app(apps: RunMeshApp, gate: Handle) -> MeshApp:
    return apps(Shop.bind(gate), name="web-shop", route_prefix="/web-shop")


@pytest.fixture(scope="module")
def shop(shop_app: MeshApp) -> Handle:
    return shop_app.handle


@pytest.fixture(scope="module")
def gateway(shop_app: MeshApp) -> Gateway:
    """That of the shop: each local application has its own."""
    grpc_port, http_port = (int(each.rpartition(":")[2]) for each in (shop_app.grpc_address, shop_app.http_url))
    return Gateway(grpc_port, http_port)


@pytest.fixture(scope="module")
def plain(apps: RunMeshApp) -> Iterator[httpx.Client]:
    app = apps(Plain.bind(Full.bind()), name="web-plain", route_prefix="/web-plain")
    with httpx.Client(base_url=f"{app.http_url}/web-plain", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def function_url(apps: RunMeshApp) -> str:
    return apps(no_request.bind(), name="web-function").http_url
