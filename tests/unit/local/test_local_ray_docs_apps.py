"""Applications of Ray Serve's documentation in local testing mode: the tests of the mesh."""

# ruff: noqa: F403, F405

import pytest

from mesh.handle import DeploymentHandle
from mesh.testing import RunMeshApp
from tests.e2e.ray_docs import URL, Run
from tests.e2e.test_ray_docs_apps import *
from tests.e2e.test_ray_docs_web import *


@pytest.fixture
def run(mesh_app: RunMeshApp) -> Run:
    """`mesh_app` with the results of the mesh's fixture."""

    def run(target: serve.Application, name: str = "documented") -> tuple[DeploymentHandle, URL]:
        app = mesh_app(target, name=name, route_prefix=f"/{name}")
        return app.handle, f"{app.http_url}/{name}"

    return run
