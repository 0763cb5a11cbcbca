"""The applications of `examples/apps/` in local testing mode: the tests of the mesh."""

# ruff: noqa: F403, F405

from collections.abc import Iterator

import pytest

from mesh.testing import RunMeshApp
from tests.e2e.test_example_apps import *


@pytest.fixture
def serve(mesh_app: RunMeshApp) -> Iterator[Serve]:
    """Runs an application of `examples/apps/` in this process, for one test."""
    clients: list[httpx.Client] = []

    def run(name: str) -> Served:
        app = mesh_app(application(name), name=name, route_prefix=f"/{name}")
        client = client_of(f"{app.http_url}/{name}")
        clients.append(client)
        return Served(app.handle, app.deployment, client, app.grpc_address)

    yield run
    for client in clients:
        client.close()
