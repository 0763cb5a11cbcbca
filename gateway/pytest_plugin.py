"""The plugin for pytest: the fixture `mesh_app`. docs/testing.md shows how it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def mesh_app() -> Iterator[Any]:
    """`mesh_app(Shop.bind())` runs an application in this process, without Ray, until the test ends.

    The fixture is a `mesh.testing.RunMeshApp`. It returns a `mesh.testing.MeshApp`: its `handle`, `deployment(name)`,
    `grpc_address` and `http_url`.
    """
    # By name, because pytest loads this file in every run, also where no test uses the mesh.
    with importlib.import_module("gateway.local_ports").local_apps() as run:
        yield run
