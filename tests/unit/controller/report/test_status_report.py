"""mesh.controller.report.status_report: the answer to Status."""

from dataclasses import replace
from typing import Any

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Death, Failures, GatewaySlot, Observed, RestartReason, Tally
from mesh.controller.report.status_judge import StatusJudge
from mesh.controller.report.status_report import build_status
from mesh.controller.scaling.scaling_rule import Load
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, desired, desired_of, gateway, observed, picture, replica


def status(wanted: Desired, seen: Observed, **fields: Any) -> control_pb2.StatusReply:
    """`fields`: of the picture."""
    judge = StatusJudge()
    judge.update(wanted, seen, 0.0)
    return build_status(picture(wanted, seen, judge.verdicts, **fields))


def test_an_application_that_runs() -> None:
    wanted = desired_of(application(version="v2", num_replicas=1))
    (config_version,) = {target.config_version for target in wanted.deployments.values()}
    (app,) = status(wanted, observed(replace(replica(), config_version=config_version))).applications
    assert (app.name, app.status, app.message, app.route_prefix) == ("app", "RUNNING", "", "/app")
    (deployment,) = app.deployments
    assert (deployment.status, deployment.target_replicas) == ("HEALTHY", 1)
    assert [each.state for each in deployment.replicas] == ["RUNNING"]


def test_a_deployment_shows_how_busy_it_is() -> None:
    """Places are those of running replicas, by the limit that they have adopted."""
    wanted = desired_of(application(version="v2"))
    (deployment,) = status(wanted, observed(replica(), replica(ReplicaState.STARTING))).applications[0].deployments
    assert (deployment.busy, deployment.waiting, deployment.places) == (0.0, 0.0, 5)
    loads = {KEY: Load(queued=1.5, ongoing=4.0)}
    (deployment,) = status(wanted, observed(replica(), replica()), loads=loads).applications[0].deployments
    assert (deployment.busy, deployment.waiting, deployment.places) == (4.0, 1.5, 10)


def test_restarts_and_the_age_and_version_of_replicas_are_shown() -> None:
    tally = Tally().with_restart(RestartReason.DIED).with_restart(RestartReason.UNHEALTHY).with_failed_check()
    seen = replace(observed(replica(created_at_s=40.0)), tallies={KEY: tally})
    (deployment,) = status(desired_of(application()), seen, now_s=100.0).applications[0].deployments
    assert deployment.restarts == 2
    assert [(each.version, each.age_s) for each in deployment.replicas] == [("v2", 60.0)]


def test_the_last_deaths_are_shown_with_their_age() -> None:
    death = Death(replica_id="r7", version="v1", node_id="n1", at_s=70.0, reason="killed by the kernel")
    seen = replace(observed(replica()), tallies={KEY: Tally().with_death(death)})
    (deployment,) = status(desired_of(application()), seen, now_s=100.0).applications[0].deployments
    assert list(deployment.deaths) == [
        control_pb2.ReplicaDeath(replica_id="r7", age_s=30.0, reason="killed by the kernel", version="v1", node_id="n1")
    ]


def test_a_deployment_that_the_controller_fails_at_is_unhealthy_by_an_internal_error() -> None:
    """The fault comes first in the messages, and when it is over the status is what it was before (item 195)."""
    wanted, seen = desired_of(application()), observed()
    (app,) = status(wanted, seen, faults={KEY: "planning failed"}).applications
    (deployment,) = app.deployments
    assert (deployment.status, deployment.trigger) == ("UNHEALTHY", "INTERNAL_ERROR")
    assert deployment.message == "planning failed\n0 of 2 replicas are running."
    assert (app.status, app.message) == ("UNHEALTHY", f"{deployment.name}: {deployment.message}")
    (deployment,) = status(wanted, seen).applications[0].deployments
    assert (deployment.status, deployment.trigger) == ("UPDATING", "CONFIG_UPDATE_STARTED")


def test_a_restricted_capacity_is_shown() -> None:
    """The status has `target_capacity` only where it is set (item 232)."""
    assert status(Desired(target_capacity=50.0), observed()).target_capacity == 50.0
    assert not status(Desired(), observed()).HasField("target_capacity")


def test_autoscaling_explains_itself_in_the_message() -> None:
    rules = AutoscalingConfig(max_replicas=9).to_message()
    before, after = (desired_of(application(version="v2", num_replicas=number, autoscaling=rules)) for number in (1, 3))
    (key,) = after.deployments
    (config_version,) = {target.config_version for target in after.deployments.values()}
    seen = observed(replace(replica(), config_version=config_version))
    judge = StatusJudge()
    judge.update(before, seen, 0.0)
    calm = judge.verdicts
    said = {key: control_pb2.AutoscalingStatus(decision="target 3: so.", problem="m:f failed: no idea")}
    judge.update(after, seen, 1.0)
    (app,) = build_status(picture(after, seen, judge.verdicts, scaling=said)).applications
    assert app.status == "RUNNING"
    assert app.deployments[0].message == (
        "1 of 3 replicas are running.\nAutoscaling: target 3: so.\nAutoscaling policy: m:f failed: no idea"
    )
    assert app.deployments[0].autoscaling == said[key]
    (app,) = build_status(picture(before, seen, calm, scaling=said)).applications
    assert app.deployments[0].message == "Autoscaling policy: m:f failed: no idea"


def test_an_application_is_deleting_until_its_last_replica_is_gone() -> None:
    (app,) = status(Desired(), observed(replica(ReplicaState.STOPPING))).applications
    assert (app.status, app.deployments[0].trigger) == ("DELETING", "DELETING")
    assert not status(Desired(), observed()).applications


def test_a_deployment_dropped_from_its_application_does_not_worsen_it() -> None:
    """It is shown until it is gone, and does not count (item 69)."""
    wanted = desired_of(application(version="v2", num_replicas=1))
    (config_version,) = {target.config_version for target in wanted.deployments.values()}
    dropped = replace(replica(), deployment=replica().deployment._replace(name="Old"))
    (app,) = status(wanted, observed(replace(replica(), config_version=config_version), dropped)).applications
    assert app.status == "RUNNING"
    assert [each.name for each in app.deployments] == ["Model", "Old"]


def test_the_message_of_an_application_names_the_failing_deployment() -> None:
    wanted = desired_of(application(version="v2"))
    failed = Failures(version="v2", count=9, message="ValueError: no model")
    failures = {(key, "v2"): failed for key in wanted.deployments}
    (app,) = status(wanted, replace(observed(), replica_failures=failures)).applications
    assert app.status == "DEPLOY_FAILED"
    assert app.message.startswith("Model: ")
    assert "ValueError: no model" in app.message


def test_what_has_failed_stands_before_what_is_being_updated() -> None:
    """The message of the application begins with what its code raised, whatever the deployments are called."""
    shop = application(version="v2")
    shop.deployments.add().CopyFrom(shop.deployments[0])
    shop.deployments[0].name = "Basket"
    failed = Failures(version="v2", count=9, message="ValueError: no model")
    wanted = desired_of(shop)
    (app,) = status(wanted, replace(observed(), replica_failures={(KEY, "v2"): failed})).applications
    assert [each.status for each in app.deployments] == ["UPDATING", "DEPLOY_FAILED"]
    assert [line.partition(": ")[0] for line in app.message.splitlines()] == ["Model", "Basket"]
    assert app.message.startswith("Model: ValueError: no model")


def test_gateways_are_listed_with_what_is_wrong() -> None:
    broken = gateway(GatewayStatus.UNHEALTHY, unhealthy="no answer")
    (listed,) = status(desired(grpc_port=9000), observed(gateways=(broken,))).gateways
    assert (listed.status, listed.message) == ("UNHEALTHY", "no answer")


def test_each_gateway_of_a_node_is_listed_with_its_own_faults() -> None:
    wanted = desired(grpc_port=9000)
    wanted.gateways.processes = 3
    failures = {GatewaySlot("n1", index): Failures(count=1, message=f"fault {index}") for index in (1, 2)}
    seen = replace(observed(gateways=(gateway(), gateway(index=1))), gateway_failures=failures)
    listed = [(each.index, each.status, each.message) for each in status(wanted, seen).gateways]
    assert listed == [(0, "HEALTHY", ""), (1, "HEALTHY", "fault 1"), (2, "UNHEALTHY", "fault 2")]


def test_a_gateway_that_cannot_start_is_listed_between_two_attempts() -> None:
    seen = replace(observed(), gateway_failures={GatewaySlot("n1"): Failures(count=1, message="port 9000 is taken")})
    (listed,) = status(desired(grpc_port=9000), seen).gateways
    assert (listed.node_id, listed.status, listed.message) == ("n1", "UNHEALTHY", "port 9000 is taken")
    assert not status(desired(is_shutting_down=True, grpc_port=9000), seen).gateways


def test_a_status_of_some_applications_leaves_the_others_out() -> None:
    """Unknown ones too."""
    wanted, seen, judge = desired_of(application("a"), application("b")), observed(), StatusJudge()
    judge.update(wanted, seen, 0.0)
    made = picture(wanted, seen, judge.verdicts)
    assert [app.name for app in build_status(made).applications] == ["a", "b"]
    assert [app.name for app in build_status(made, ["b", "c"]).applications] == ["b"]
