"""Handles of local applications behave as those of the mesh: its tests, without those that need Ray."""

# ruff: noqa: F403, F821

from tests.e2e.test_handles import *

del test_responses_are_passed_on_without_awaiting_them
del test_a_result_becomes_an_object_ref_when_asked
del test_a_handle_travels_into_tasks_actors_and_deployments
del test_a_handle_connects_at_its_first_call_and_can_be_shut_down
del test_items_become_object_refs_one_by_one
