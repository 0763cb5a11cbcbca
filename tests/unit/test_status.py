"""mesh.status: the controller's reply becomes frozen records whose enums equal their strings."""

import dataclasses

import pytest

from mesh.status import (
    ApplicationStatus,
    AutoscalingStatus,
    ControllerOverview,
    DeathOverview,
    DeploymentStatus,
    DeploymentStatusTrigger,
    GatewayOverview,
    GatewayStatus,
    MeshStatus,
    ReplicaOverview,
    ReplicaState,
    from_reply,
)
from mesh.v1 import control_pb2


def _reply() -> control_pb2.StatusReply:
    replicas = [
        control_pb2.ReplicaStatus(replica_id=str(number), state=state)
        for number, state in enumerate(["RUNNING", "RUNNING", "STARTING"])
    ]
    deployment = control_pb2.DeploymentStatus(
        name="Model", status="UPDATING", trigger="CONFIG_UPDATE_STARTED", message="one to go", replicas=replicas
    )
    app = control_pb2.ApplicationStatus(
        name="default", status="DEPLOYING", last_deployed_time_s=12.5, deployments=[deployment]
    )
    gateways = [
        control_pb2.GatewayStatus(gateway_id="g1", node_id="n1", status="HEALTHY"),
        control_pb2.GatewayStatus(gateway_id="g2", node_id="n1", status="STARTING", index=1),
        control_pb2.GatewayStatus(gateway_id="g3", node_id="n2", status="HEALTHY"),
    ]
    return control_pb2.StatusReply(applications=[app], gateways=gateways)


def test_values_compare_equal_to_their_strings() -> None:
    """Statuses can be compared with plain strings (item 126)."""
    app = from_reply(_reply()).applications["default"]
    assert app.status == "DEPLOYING"
    assert app.last_deployed_time_s == 12.5
    model = app.deployments["Model"]
    assert (model.status, model.status_trigger) == ("UPDATING", "CONFIG_UPDATE_STARTED")
    assert model.replica_states == {"RUNNING": 2, "STARTING": 1}
    assert model.message == "one to go"


def test_gateways_have_their_addresses() -> None:
    """Per node, for gRPC and HTTP (item 126)."""
    opened = control_pb2.GatewayStatus(
        node_id="n1", status="HEALTHY", grpc_address="10.0.0.7:40123", http_address="localhost:8000"
    )
    failing = control_pb2.GatewayStatus(node_id="n2", status="STARTING", message="cannot listen")
    assert from_reply(control_pb2.StatusReply(gateways=[opened, failing])).gateways == (
        GatewayOverview(
            node_id="n1",
            status=GatewayStatus.HEALTHY,
            grpc_address="10.0.0.7:40123",
            http_address="localhost:8000",
        ),
        GatewayOverview(node_id="n2", status=GatewayStatus.STARTING, message="cannot listen"),
    )


def test_autoscaling_is_shown_where_there_is_any() -> None:
    reply = _reply()
    assert from_reply(reply).applications["default"].deployments["Model"].autoscaling is None
    scaled = reply.applications[0].deployments[0]
    scaled.target_replicas = 3
    scaled.autoscaling.CopyFrom(
        control_pb2.AutoscalingStatus(
            min_replicas=1, max_replicas=9, average_requests=5.0, current_requests=6.0, decision="so", problem="but"
        )
    )
    model = from_reply(reply).applications["default"].deployments["Model"]
    assert model.target_replicas == 3
    assert model.autoscaling == AutoscalingStatus(
        min_replicas=1, max_replicas=9, average_requests=5.0, current_requests=6.0, decision="so", problem="but"
    )


def test_the_capacity_is_shown() -> None:
    """`target_capacity` is None where it is not set (item 232)."""
    assert from_reply(control_pb2.StatusReply(target_capacity=50)).target_capacity == 50.0
    assert from_reply(_reply()).target_capacity is None


def test_load_restarts_and_replicas_are_shown() -> None:
    reply = _reply()
    assert from_reply(reply).controller is None
    reply.controller.MergeFrom(control_pb2.ControllerStatus(pid=1, node_id="n1", age_s=2.0, restarts=3))
    shown = reply.applications[0].deployments[0]
    shown.MergeFrom(control_pb2.DeploymentStatus(busy=4.5, waiting=1.5, places=5, restarts=2))
    shown.replicas[2].MergeFrom(
        control_pb2.ReplicaStatus(version="v1", age_s=7.0, node_id="n1", pid=9, address="h:1", stop_reason="unhealthy")
    )
    status = from_reply(reply)
    assert status.controller == ControllerOverview(pid=1, node_id="n1", age_s=2.0, restarts=3)
    model = status.applications["default"].deployments["Model"]
    assert (model.busy, model.waiting, model.places, model.restarts) == (4.5, 1.5, 5, 2)
    assert model.replicas["2"] == ReplicaOverview(
        state=ReplicaState.STARTING,
        version="v1",
        age_s=7.0,
        node_id="n1",
        pid=9,
        address="h:1",
        stop_reason="unhealthy",
    )


def test_a_node_shows_the_worst_of_its_gateways() -> None:
    assert from_reply(_reply()).proxies == {"n1": "STARTING", "n2": "HEALTHY"}


def test_a_node_whose_gateway_is_replaced_shows_the_one_that_serves() -> None:
    old = control_pb2.GatewayStatus(node_id="n1", status="DRAINING")
    new = control_pb2.GatewayStatus(node_id="n1", status="HEALTHY", revision=1)
    assert from_reply(control_pb2.StatusReply(gateways=[old, new])).proxies == {"n1": "HEALTHY"}


def test_an_empty_reply_is_an_empty_status() -> None:
    """Without anything deployed the status is empty (item 126)."""
    assert from_reply(control_pb2.StatusReply()) == MeshStatus()


def test_a_trigger_the_controller_did_not_set_is_unspecified() -> None:
    reply = _reply()
    reply.applications[0].deployments[0].trigger = ""
    assert from_reply(reply).applications["default"].deployments["Model"].status_trigger == "UNSPECIFIED"


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MeshStatus().target_capacity = 1.0  # type: ignore[misc]


def test_every_status_of_the_contract_exists() -> None:
    """No value of the enums is missing (items 194, 195, 197–199)."""
    assert set(DeploymentStatus) == {
        "UPDATING", "HEALTHY", "UNHEALTHY", "DEPLOY_FAILED", "UPSCALING", "DOWNSCALING",
    }  # fmt: skip
    assert {"AUTOSCALING", "DELETING", "REPLICA_STARTUP_FAILED"} <= set(DeploymentStatusTrigger)
    assert {"RECOVERING", "PENDING_MIGRATION"} <= set(ReplicaState)
    assert set(ApplicationStatus) == {
        "NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "RUNNING", "UNHEALTHY", "DELETING",
    }  # fmt: skip
    assert {"DRAINING", "DRAINED"} <= set(GatewayStatus)


def test_a_stopping_replica_shows_its_reason() -> None:
    reply = _reply()
    model = reply.applications[0].deployments[0]
    assert from_reply(reply).applications["default"].deployments["Model"].stop_reasons == {}
    model.replicas[0].stop_reason = "more than wanted"
    model.last_ended = "replica 7: unhealthy"
    overview = from_reply(reply).applications["default"].deployments["Model"]
    assert overview.stop_reasons == {"0": "more than wanted"}
    assert overview.last_ended == "replica 7: unhealthy"


def test_deaths_are_shown_with_when_where_and_why() -> None:
    reply = _reply()
    reply.applications[0].deployments[0].deaths.add(
        replica_id="7", age_s=60.0, reason="killed", version="v1", node_id="n1"
    )
    assert from_reply(reply).applications["default"].deployments["Model"].deaths == (
        DeathOverview(replica_id="7", age_s=60.0, reason="killed", version="v1", node_id="n1"),
    )
