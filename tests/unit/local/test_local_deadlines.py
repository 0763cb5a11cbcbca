"""Deadlines in local applications: the tests of the mesh that need no gateway."""

# ruff: noqa: F403, F821

from tests.e2e.test_deadlines import *

del test_a_deadline_reaches_grandchildren_and_none_is_none
del test_the_smaller_of_the_own_and_the_inherited_deadline_counts
del test_an_expired_deadline_stops_the_whole_chain
del test_a_clients_deadline_stops_the_whole_chain
del test_a_grpc_client_learns_that_its_deadline_was_spent_in_a_queue
