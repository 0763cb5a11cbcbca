"""mesh.controller.report.controller_metrics: the status as numbers, and what only the controller has counted."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Node, Observed, RestartReason, Tally
from mesh.controller.report.controller_metrics import (
    APPLICATION_STATUS,
    CONTROLLER_RESTARTS,
    DEPLOYMENT_STATUS,
    FAILED_CHECKS,
    GATEWAYS,
    GATEWAYS_WANTED,
    NODES,
    PLACES,
    REPLICAS,
    RESTARTS,
    RUNNING,
    START_TIME,
    TURN_AGE,
    WANTED,
    controller_samples,
)
from mesh.controller.report.mesh_picture import ControllerIdentity
from mesh.controller.report.status_judge import StatusJudge
from mesh.status import GatewayStatus, ReplicaState
from mesh.wire.telemetry import Family
from tests.unit.controller.builders import (
    KEY,
    application,
    desired,
    desired_of,
    gateway,
    observed,
    picture,
    replica,
)

IDENTITY = ControllerIdentity(pid=1, node_id="n1", started_unix_s=1000.0, restarts=2)
Values = dict[tuple[str, ...], float]


def values(wanted: Desired, seen: Observed, **fields: Any) -> dict[Family, Values]:
    """The value of every series, by family and label values."""
    judge = StatusJudge()
    judge.update(wanted, seen, 0.0)
    samples = controller_samples(picture(wanted, seen, judge.verdicts, **fields), IDENTITY)
    return {family: {sample.label_values: sample.value for sample in each} for family, each in samples}


def test_wanted_and_running_replicas_and_their_places() -> None:
    seen = observed(replica(), replica(ReplicaState.STARTING), replica(ReplicaState.STOPPING))
    found = values(desired_of(application(version="v2", num_replicas=3)), seen)
    assert (found[WANTED], found[RUNNING], found[PLACES]) == ({KEY: 3}, {KEY: 1}, {KEY: 5})
    assert {state: count for (state,), count in found[REPLICAS].items() if count} == {
        "RUNNING": 1,
        "STARTING": 1,
        "STOPPING": 1,
    }


def test_nodes_are_counted_by_status() -> None:
    cordoned = Node(node_id="n2", is_cordoned=True)
    seen = replace(observed(), nodes=(*observed().nodes, cordoned, replace(cordoned, node_id="n3")))
    found = values(desired(), seen)[NODES]
    assert found == {("READY",): 1, ("CORDONED",): 2, ("DRAINING",): 0, ("DRAINED",): 0, ("LEAVING",): 0}


def test_of_all_statuses_one_is_set() -> None:
    found = values(desired_of(application(version="v2")), observed(replica()))
    assert [labels for labels, value in found[DEPLOYMENT_STATUS].items() if value] == [(*KEY, "UPDATING")]
    assert [labels for labels, value in found[APPLICATION_STATUS].items() if value] == [("app", "DEPLOYING")]
    assert found[APPLICATION_STATUS]["app", "UNHEALTHY"] == 0


def test_restarts_have_all_reasons_from_the_start() -> None:
    """Prometheus sees the first increase only if there was a zero before."""
    wanted = desired_of(application(version="v2"))
    found = values(wanted, observed(replica()))
    assert found[RESTARTS] == {(*KEY, reason): 0 for reason in RestartReason}
    tally = Tally().with_restart(RestartReason.DIED).with_restart(RestartReason.DIED).with_failed_check()
    found = values(wanted, replace(observed(replica()), tallies={KEY: tally}))
    assert found[RESTARTS][(*KEY, "died")] == 2
    assert found[FAILED_CHECKS] == {KEY: 1}


def test_gateways_are_counted_by_status() -> None:
    seen = observed(gateways=(gateway(GatewayStatus.UNHEALTHY),))
    found = values(desired(grpc_port=9000), seen)
    assert found[GATEWAYS_WANTED] == {(): 1}
    assert found[GATEWAYS] == {(status,): float(status == "UNHEALTHY") for status in GatewayStatus}


def test_the_controller_shows_its_life() -> None:
    found = values(Desired(), observed(), turn_age_s=3.0)
    assert (found[START_TIME], found[CONTROLLER_RESTARTS], found[TURN_AGE]) == ({(): 1000.0}, {(): 2}, {(): 3.0})


@pytest.mark.parametrize("family", [WANTED, RUNNING, RESTARTS, FAILED_CHECKS, DEPLOYMENT_STATUS])
def test_a_deleted_deployment_leaves_no_series(family: Family) -> None:
    assert values(Desired(), observed())[family] == {}
