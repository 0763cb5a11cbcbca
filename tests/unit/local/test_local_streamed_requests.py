"""Request streams of local applications behave as those of the mesh: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_streamed_requests import *
