"""Handles of local applications behave as those of the mesh: its tests, without those that need Ray."""

# ruff: noqa: F403, F821

from tests.e2e.test_handles import *

del test_references_to_ray_objects_are_passed_on_as_their_values
del test_a_result_becomes_an_object_ref_when_asked
del test_a_handle_travels_into_tasks_and_actors
del test_items_become_object_refs_one_by_one
