"""Cancels in local applications: the tests of the mesh that need no gateway."""

# ruff: noqa: F403, F821

from tests.e2e.test_cancellation import *

del test_a_clients_cancel_is_seen_three_deployments_down_within_100_ms
del test_twenty_thousand_cancels_at_random_times_leave_no_call_behind
