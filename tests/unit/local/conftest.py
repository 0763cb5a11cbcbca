"""The fixtures of end-to-end tests, for local applications: the same tests run here without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import mesh
from gateway.pytest_plugin import mesh_app as mesh_app
from tests.e2e.conftest import Deploy
from tests.unit.fakes.small_mesh import until


@pytest.fixture(scope="module")
def deploy() -> Iterator[Deploy]:
    """`mesh.run` in local testing mode, for applications that end with the test module."""
    with ExitStack() as stack:

        def run(target: mesh.Application, name: str) -> mesh.DeploymentHandle[Any]:
            stack.callback(mesh.delete, name)
            return mesh.run(target, name=name, route_prefix=f"/{name}", _local_testing_mode=True)

        yield run


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Proves that no thread of user code is left."""
    yield
    until(lambda: not user_threads(), "the end of all threads of user code")


def user_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("mesh-user")]
