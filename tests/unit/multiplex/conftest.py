"""What tests of loaders share: asyncio, and a replica whose models go with the test."""

from collections.abc import Iterator

import pytest

from mesh.multiplex.multiplex_decorator import ModelRegistry
from mesh.testing import replica_context


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRegistry]:
    """Inside of a replica, with a registry that goes with the test."""
    registry = ModelRegistry()
    monkeypatch.setattr("mesh.multiplex.multiplex_decorator.current_registry", lambda: registry)
    with replica_context():
        yield registry
