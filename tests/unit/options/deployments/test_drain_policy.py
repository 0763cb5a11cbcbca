"""mesh.options.deployments.drain_policy: when a drain has to begin, and when it has taken too long."""

from mesh.options.deployments.drain_policy import DrainPolicy, drain_policy_of
from mesh.v1 import control_pb2

POLICY = DrainPolicy(timeout_s=20.0, margin_s=5.0)


def test_a_drain_is_overdue_after_its_timeout_and_the_margin() -> None:
    assert not POLICY.is_overdue(since_at_s=100.0, now_s=125.0)
    assert POLICY.is_overdue(since_at_s=100.0, now_s=125.1)


def test_a_drain_that_begins_in_time_is_not_overdue_when_the_node_ends() -> None:
    begun_at_s = POLICY.begin_by(node_ends_at_s=1000.0)
    assert not POLICY.is_overdue(begun_at_s, now_s=1000.0)
    assert POLICY.is_overdue(begun_at_s, now_s=1000.1)


def test_without_a_timeout_there_is_nothing_to_wait_for() -> None:
    assert DrainPolicy(0.0).is_immediate
    assert not POLICY.is_immediate


def test_the_timeout_is_an_option_of_the_deployment() -> None:
    options = control_pb2.DeploymentOptions(graceful_shutdown_timeout_s=3.0)
    assert drain_policy_of(options).timeout_s == 3.0
