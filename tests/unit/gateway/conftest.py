"""What tests of gateways on real sockets share."""

from __future__ import annotations

import pytest


@pytest.fixture
def eager_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at so often that a test need not wait for it."""
    monkeypatch.setattr("mesh.http2.transport._LOOK_INTERVAL_S", 0.01)
