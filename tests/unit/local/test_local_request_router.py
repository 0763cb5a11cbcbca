"""Request routers of local applications: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_request_router import *
