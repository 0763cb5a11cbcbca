"""What unit tests of several rooms share."""

import pytest

from mesh.replica.failure_log import failure_log
from tests.unit.fakes.mesh_fakes import FakeCluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """In the place of Ray and of the control client; the process has looked up no handle yet."""
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster


@pytest.fixture(autouse=True)
def no_earlier_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of failed calls, one of each process, neither counts nor reports those of earlier tests."""
    monkeypatch.setattr(failure_log, "_limit", None)
