"""Limits of local applications: the tests of the mesh that read no metrics."""

# ruff: noqa: F403, F821

from tests.e2e.test_backpressure import *

del test_a_replica_never_runs_more_calls_than_its_limit
del test_a_full_queue_refuses_and_says_so_at_every_door
