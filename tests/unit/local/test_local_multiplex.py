"""Multiplexed models of local applications: the same tests, but for those of two replicas and of metrics."""

# ruff: noqa: F403, F405, F821

import pytest

from tests.e2e.test_multiplex import *

del test_a_model_is_served_where_it_is_loaded_and_new_ones_go_where_fewest_are
del test_loads_and_unloads_are_metrics
del test_a_hot_model_spreads_when_its_replica_is_full
del test_models_have_a_budget_of_bytes_copies_aliases_and_a_preload


@pytest.fixture(scope="module")
def caller(deploy: Deploy) -> Handle:
    return deploy(Caller.bind(Models.bind()), "multiplex")
