"""mesh.controller.report.status_report: the answer to Status."""

from dataclasses import replace

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Failures, Observed
from mesh.controller.report.status_judge import StatusJudge
from mesh.controller.report.status_report import build_status
from mesh.options.autoscaling_options import AutoscalingConfig
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application, desired, desired_of, gateway, observed, replica


def status(wanted: Desired, seen: Observed) -> control_pb2.StatusReply:
    judge = StatusJudge()
    judge.update(wanted, seen, 0.0)
    return build_status(wanted, seen, judge.verdicts, 0.0)


def test_an_application_that_runs() -> None:
    wanted = desired_of(application(version="v2", num_replicas=1))
    (config_version,) = {target.config_version for target in wanted.deployments.values()}
    (app,) = status(wanted, observed(replace(replica(), config_version=config_version))).applications
    assert (app.name, app.status, app.message, app.route_prefix) == ("app", "RUNNING", "", "/app")
    (deployment,) = app.deployments
    assert (deployment.status, deployment.target_replicas) == ("HEALTHY", 1)
    assert [each.state for each in deployment.replicas] == ["RUNNING"]


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
    (app,) = build_status(after, seen, judge.verdicts, 1.0, said).applications
    assert app.status == "RUNNING"
    assert app.deployments[0].message == (
        "1 of 3 replicas are running.\nAutoscaling: target 3: so.\nAutoscaling policy: m:f failed: no idea"
    )
    assert app.deployments[0].autoscaling == said[key]
    (app,) = build_status(before, seen, calm, 1.0, said).applications
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
    failures = {key: Failures(version="v2", count=9, message="ValueError: no model") for key in wanted.deployments}
    (app,) = status(wanted, replace(observed(), replica_failures=failures)).applications
    assert app.status == "DEPLOY_FAILED"
    assert app.message.startswith("Model: ")
    assert "ValueError: no model" in app.message


def test_gateways_are_listed_with_what_is_wrong() -> None:
    broken = gateway(GatewayStatus.UNHEALTHY, unhealthy="no answer")
    (listed,) = status(desired(grpc_port=9000), observed(gateways=(broken,))).gateways
    assert (listed.status, listed.message) == ("UNHEALTHY", "no answer")


def test_a_gateway_that_cannot_start_is_listed_between_two_attempts() -> None:
    seen = replace(observed(), gateway_failures={"n1": Failures(count=1, message="port 9000 is taken")})
    (listed,) = status(desired(grpc_port=9000), seen).gateways
    assert (listed.node_id, listed.status, listed.message) == ("n1", "UNHEALTHY", "port 9000 is taken")
    assert not status(desired(is_shutting_down=True, grpc_port=9000), seen).gateways
