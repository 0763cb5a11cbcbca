"""What unit tests of several rooms share."""

import pytest

from tests.unit.fakes.mesh_fakes import FakeCluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """In the place of Ray and of the control client; the process has looked up no handle yet."""
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster
