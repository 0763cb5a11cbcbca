"""What tests of gateways on real sockets share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.unit.fakes.standing_loop import standing_loop


@pytest.fixture
def eager_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at so often that a test need not wait for it."""
    monkeypatch.setattr("mesh.http2.transport._LOOK_INTERVAL_S", 0.01)


@pytest.fixture
def on_a_loop() -> Iterator[None]:
    """A loop that does not run."""
    with standing_loop():
        yield


@pytest.fixture(scope="session")
def alone() -> Iterator[ProcessPoolExecutor]:
    """A process in which nothing else takes memory. What runs there has no fixtures."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield process
