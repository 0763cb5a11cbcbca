"""mesh.controller.report.deployment_status: statuses, triggers and messages (items 194–198)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.autoscaling_targets import ScalingRules
from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.cluster_picture import NO_FAILURES, Failures, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.report.deployment_status import Verdict, application_status, deleted_verdict, next_verdict
from mesh.status import ApplicationStatus, DeploymentStatus, ReplicaState
from tests.unit.controller.builders import observed, replica, target

STARTING = ReplicaState.STARTING


def look(
    previous: Verdict | None, wanted: DeploymentTarget, *replicas: Replica, failures: Failures = NO_FAILURES
) -> Verdict:
    return next_verdict(previous, wanted, replicas, failures, ClusterResources(observed(*replicas), now_s=0.0))


def seen(verdict: Verdict) -> tuple[str, str]:
    return verdict.status, verdict.trigger


@pytest.fixture
def healthy() -> Verdict:
    return look(None, target(2), replica(), replica())


def test_a_deployment_is_updating_until_its_replicas_run(healthy: Verdict) -> None:
    begun = look(None, target(2), replica(), replica(STARTING))
    assert seen(begun) == ("UPDATING", "CONFIG_UPDATE_STARTED")
    assert begun.message == "1 of 2 replicas are running."
    assert seen(healthy) == ("HEALTHY", "CONFIG_UPDATE_COMPLETED")
    assert healthy.message == ""


def test_scaling_has_its_own_statuses(healthy: Verdict) -> None:
    """Changing only `num_replicas` is not an update (item 196)."""
    more = look(healthy, target(3), replica(), replica())
    assert seen(more) == ("UPSCALING", "CONFIG_UPDATE_STARTED")
    assert seen(look(more, target(3), replica(), replica(), replica())) == ("HEALTHY", "UPSCALE_COMPLETED")
    less = look(healthy, target(1), replica(), replica())
    assert seen(less) == ("DOWNSCALING", "CONFIG_UPDATE_STARTED")
    assert seen(look(less, target(1), replica())) == ("HEALTHY", "DOWNSCALE_COMPLETED")


def test_scaling_ends_no_update_and_takes_back_no_failure(healthy: Verdict) -> None:
    """What waits for the update must not hear that it has succeeded."""
    olds, failures = [replica(version="v2") for _ in range(4)], Failures(version="v3", count=6)
    updating = look(healthy, target(2, "v3"), *olds[:2])
    for number in (1, 4):
        assert seen(look(updating, target(number, "v3"), *olds)) == ("UPDATING", "CONFIG_UPDATE_STARTED")
        failed = look(look(updating, target(2, "v3"), *olds, failures=failures), target(number, "v3"), *olds)
        assert seen(failed) == ("DEPLOY_FAILED", "REPLICA_STARTUP_FAILED")
    assert seen(look(updating, target(1, "v3"), replica(version="v3"))) == ("HEALTHY", "CONFIG_UPDATE_COMPLETED")


def scaled(num_replicas: int, **rules: int) -> DeploymentTarget:
    return replace(target(num_replicas), scaling=ScalingRules(max_replicas=9, **rules))


def test_autoscaling_has_its_own_trigger() -> None:
    """Changed options of autoscaling count as a new configuration instead (items 195, 196)."""
    calm = look(None, scaled(1), replica())
    more = look(calm, scaled(3), replica())
    assert seen(more) == ("UPSCALING", "AUTOSCALING")
    assert seen(look(more, scaled(3), replica(), replica(), replica())) == ("HEALTHY", "UPSCALE_COMPLETED")
    assert seen(look(calm, scaled(0), replica())) == ("DOWNSCALING", "AUTOSCALING")
    assert seen(look(calm, scaled(3, min_replicas=3), replica())) == ("UPSCALING", "CONFIG_UPDATE_STARTED")


def test_autoscaling_completes_no_update_and_heals_nothing() -> None:
    updating = look(None, scaled(2), replica())
    assert seen(look(updating, scaled(3), replica())) == ("UPDATING", "CONFIG_UPDATE_STARTED")
    failing = Failures(version="v2", count=2)
    unhealthy = look(look(None, scaled(1), replica()), scaled(1), failures=failing)
    assert seen(look(unhealthy, scaled(3), replica(), failures=failing)) == seen(unhealthy)


def test_a_smaller_deployment_is_downscaling_until_the_others_have_left(healthy: Verdict) -> None:
    less = look(healthy, target(1), replica(), replica(ReplicaState.STOPPING))
    assert seen(less) == ("DOWNSCALING", "CONFIG_UPDATE_STARTED")
    assert seen(look(less, target(1), replica())) == ("HEALTHY", "DOWNSCALE_COMPLETED")


def test_a_failure_of_long_ago_does_not_make_scaling_fail(healthy: Verdict) -> None:
    """A replica died once; since then all is well."""
    old = Failures(version="v2", count=1, last_at_s=10.0, has_succeeded=True)
    calm = next_verdict(healthy, target(2), [replica(), replica()], old, ClusterResources(observed(), now_s=20.0))
    more = next_verdict(calm, target(3), [replica(), replica()], old, ClusterResources(observed(), now_s=30.0))
    assert more.status == "UPSCALING"
    fresh = replace(old, count=2, last_at_s=31.0)
    assert (
        next_verdict(more, target(3), [replica(), replica()], fresh, ClusterResources(observed(), now_s=31.0)).status
        == "UNHEALTHY"
    )


def test_failing_constructors_fail_the_deployment_and_show_why() -> None:
    """The message has the exception first and its traceback last (item 148)."""
    failed = look(None, target(2), failures=Failures(version="v2", count=6, message="ValueError: no model\n  File"))
    assert seen(failed) == ("DEPLOY_FAILED", "REPLICA_STARTUP_FAILED")
    assert failed.message.startswith("ValueError: no model. Deployment 'Model' of application")
    assert "failed to start 6 times" in failed.message
    assert failed.message.endswith("\n  File")


def test_a_failed_update_says_that_the_old_version_serves(healthy: Verdict) -> None:
    olds = [replica(version="v1"), replica(version="v1")]
    failed = look(healthy, target(2, "v3"), *olds, failures=Failures(version="v3", count=6))
    assert failed.status == "DEPLOY_FAILED"
    assert "2 replicas of the version before keep serving." in failed.message


def test_an_update_says_which_version_it_counts(healthy: Verdict) -> None:
    updating = look(healthy, target(2, "v3"), replica(version="v1"), replica(version="v3"))
    assert updating.message == ("1 of 2 replicas run the new version. 1 replica of the version before keeps serving.")


def test_one_is_no_plural(healthy: Verdict) -> None:
    """Counts of one read as English."""
    assert deleted_verdict([replica(ReplicaState.STOPPING), replica()]).message == (
        "1 replica is stopping. 1 replica serves until the callers have stopped."
    )
    assert deleted_verdict([replica(ReplicaState.STOPPING)] * 2).message == "2 replicas are stopping."
    moving = look(healthy, target(2), replica(), replica(ReplicaState.PENDING_MIGRATION))
    assert moving.message.startswith("1 replica moves off nodes that are being drained.")
    once = look(None, target(1), failures=Failures(version="v2", count=3))
    assert "failed to start 3 times" in once.message


def test_a_failed_deployment_recovers_when_it_is_deployed_again() -> None:
    failed = look(None, target(1), failures=Failures(version="v2", count=3))
    again = look(failed, target(1, "v3"), replica(STARTING, "v3"))
    assert seen(again) == ("UPDATING", "CONFIG_UPDATE_STARTED")
    assert seen(look(again, target(1, "v3"), replica(version="v3"))) == ("HEALTHY", "CONFIG_UPDATE_COMPLETED")


def test_a_lost_replica_makes_a_healthy_deployment_unhealthy_until_it_is_replaced(healthy: Verdict) -> None:
    lost = look(healthy, target(2), replica(), failures=Failures(version="v2", count=1, message="it was killed"))
    assert seen(lost) == ("UNHEALTHY", "HEALTH_CHECK_FAILED")
    assert "it was killed" in lost.message
    assert seen(look(lost, target(2), replica(), replica())) == ("HEALTHY", "UNSPECIFIED")


def test_a_constructor_that_fails_while_scaling_makes_it_unhealthy(healthy: Verdict) -> None:
    """DEPLOY_FAILED is for updates only (item 196)."""
    failing = Failures(version="v2", count=1, has_succeeded=True)
    more = look(healthy, target(3), replica(), replica(), failures=failing)
    assert seen(more) == ("UNHEALTHY", "REPLICA_STARTUP_FAILED")


def test_replicas_that_are_leaving_do_not_keep_a_deployment_updating() -> None:
    assert look(None, target(1), replica(), replica(ReplicaState.STOPPING)).status == "HEALTHY"


def test_the_message_counts_replicas_that_wait_for_a_process() -> None:
    waiting = replace(replica(STARTING, created_at_s=-60.0), is_placed=False)
    wanted = replace(target(1), request=ResourceRequest(((("CPU", 1.0),),)))
    assert "1 of 1 replicas wait for room" in look(None, wanted, waiting).message
    assert "1 of 1 replicas wait for Ray to start their processes" in look(None, target(1), waiting).message


def test_the_message_shows_a_slow_constructor() -> None:
    """A constructor that hangs is seen in the status."""
    started = replace(replica(STARTING, created_at_s=-60.0), placed_at_s=-42.0)
    message = look(None, target(1), started).message
    assert message.endswith("1 replica has been starting for 42 s: its constructor has not returned.")
    message = look(None, target(2), started, replace(started, placed_at_s=-50.0)).message
    assert message.endswith("2 replicas are starting, the longest for 50 s: its constructor has not returned.")
    fresh = replace(replica(STARTING, created_at_s=-60.0), placed_at_s=-3.0)
    assert "constructor" not in look(None, target(1), fresh).message


def test_a_replica_that_moves_off_its_node_leaves_the_deployment_healthy(healthy: Verdict) -> None:
    """A migration is not a failure (item 192)."""
    moving = replica(ReplicaState.PENDING_MIGRATION)
    assert look(healthy, target(2), replica(), moving).status == "HEALTHY"
    assert look(healthy, target(2), replica(), moving, replica(STARTING)).status == "HEALTHY"
    assert look(healthy, target(2), replica(), moving, replica()).status == "HEALTHY"


def test_replicas_that_are_not_needed_any_more_leave_the_deployment_healthy(healthy: Verdict) -> None:
    """A replacement that was starting when a drain was called off, and one of a canary that has ended."""
    for other in (replica(STARTING), replica(), replica(version="v3")):
        assert look(healthy, target(2), replica(), replica(), other) == healthy
    assert look(healthy, target(2), replica(), replica(version="v3"), replica(STARTING)).status == "UNHEALTHY"
    begun = look(None, target(2), replica(), replica(), replica(version="v1"))
    assert begun.status == "UPDATING", "an update ends when no other version serves"


def test_a_deleted_deployment_says_so() -> None:
    assert seen(deleted_verdict([replica()])) == ("UPDATING", "DELETING")


@pytest.mark.parametrize(
    ("deployments", "expected"),
    [
        (["HEALTHY", "UNHEALTHY", "DEPLOY_FAILED"], ApplicationStatus.UNHEALTHY),
        (["UPDATING", "DEPLOY_FAILED"], ApplicationStatus.DEPLOY_FAILED),
        (["HEALTHY", "UPDATING"], ApplicationStatus.DEPLOYING),
        (["HEALTHY", "UPSCALING", "DOWNSCALING"], ApplicationStatus.RUNNING),
    ],
)
def test_the_worst_deployment_decides(deployments: list[str], expected: ApplicationStatus) -> None:
    """The worst deployment gives the status of the application (item 198)."""
    assert application_status(DeploymentStatus(each) for each in deployments) == expected


RUNNING = replica()
REPLICAS = (
    *(replica(state) for state in ReplicaState),
    replica(version="v1"),
    replica(unhealthy="no answer"),
    *(
        replace(RUNNING, **changed)
        for changed in (
            {"not_ready": "no index"},
            {"health_failures": 3},
            {"node_ends_at_s": 9.0},
            {"config_version": "c0"},
        )
    ),
)


@given(
    st.lists(st.sampled_from([RUNNING] * 6 + list(REPLICAS)), max_size=3),
    st.sampled_from([NO_FAILURES, Failures(version="v2", count=1, has_succeeded=True), Failures(count=9)]),
    st.sampled_from([None, *DeploymentStatus]),
)
def test_a_deployment_that_is_at_rest_is_judged_as_any_other(
    replicas: list[Replica], failures: Failures, status: DeploymentStatus | None
) -> None:
    """Its last verdict stands without another look, which would find the same."""
    wanted = target(2)
    before = look(None, wanted, RUNNING, RUNNING)
    before = before if status is None else replace(before, status=status)
    of_another_target = replace(before, target=replace(wanted))
    looked_again = look(of_another_target, wanted, *replicas, failures=failures)
    assert look(before, wanted, *replicas, failures=failures) == looked_again
    assert (look(before, wanted, RUNNING, RUNNING) is before) == (before.status == DeploymentStatus.HEALTHY)
