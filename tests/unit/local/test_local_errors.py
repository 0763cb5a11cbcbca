"""Errors in local applications arrive as in the mesh: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_errors import *
