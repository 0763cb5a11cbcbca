"""The store of these tests, or another target, behind a real link, with the user loop isolated and inline."""

from collections.abc import Iterator

import pytest

from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.handle.store import Store
from tests.unit.handle.stream_reader import Reader, no_stream_threads


@pytest.fixture
def target() -> object:
    return Store()


@pytest.fixture(params=[True, False], ids=["isolated", "inline"])
def mesh(request: pytest.FixtureRequest, target: object) -> Iterator[SmallMesh]:
    with mesh_of(target, is_isolated=request.param) as mesh:
        yield mesh
        mesh.assert_idle()
        assert no_stream_threads()


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def store(mesh: SmallMesh) -> Store:
    target = mesh.replicas[0].target
    assert isinstance(target, Store)
    return target
