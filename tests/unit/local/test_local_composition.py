"""Local applications are made of deployments as those of the mesh: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_composition import *
