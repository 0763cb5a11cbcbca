"""Broadcasts and chosen replicas of local applications: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_broadcast import *
