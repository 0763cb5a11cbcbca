"""Options of single calls in local applications: the tests of the mesh."""

# ruff: noqa: F403

from tests.e2e.test_call_options import *
