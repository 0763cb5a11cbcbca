"""Batches of local applications: the tests of the mesh that read no metrics."""

# ruff: noqa: F403, F821

from tests.e2e.test_batch import *

del test_calls_that_come_together_fill_a_batch
