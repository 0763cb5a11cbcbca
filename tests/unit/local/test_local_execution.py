"""Local applications execute calls as replicas do: the tests of the mesh, on isolated loops."""

# ruff: noqa: F403, F405, F821

import pytest

from tests.e2e.test_execution import *

del test_servicer_methods_may_be_def_or_async


@pytest.fixture(scope="module")
def mixed(deploy: Deploy) -> Handle:
    """User loops are always isolated here."""
    return deploy(Mixed.bind(Gate.bind()), "mixed")
