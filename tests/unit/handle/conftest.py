"""The store of these tests behind a real link, with the user loop isolated and inline."""

from collections.abc import Iterator

import pytest

from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.handle.store import Store


@pytest.fixture(params=[True, False], ids=["isolated", "inline"])
def mesh(request: pytest.FixtureRequest) -> Iterator[SmallMesh]:
    with mesh_of(Store(), is_isolated=request.param) as mesh:
        yield mesh
        mesh.assert_idle()


@pytest.fixture
def store(mesh: SmallMesh) -> Store:
    target = mesh.replicas[0].target
    assert isinstance(target, Store)
    return target
