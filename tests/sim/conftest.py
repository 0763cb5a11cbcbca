"""Limits of the simulations: they wait for nothing, so what a run may take is CPU time (`fake_time.py`)."""

from pathlib import Path

import pytest

TIMEOUT_S = 600
"""Of a machine that is busy with something else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
