"""mesh.controller.report.node_statuses: which nodes take replicas, and how far drains are."""

import math
from dataclasses import replace

import pytest

from mesh.controller.nodes.cordons import newly_drained
from mesh.controller.plan.cluster_picture import NO_FAILURES, Gateway, Node, Observed, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.report.deployment_status import Verdict, next_verdict
from mesh.controller.report.node_statuses import node_status, node_statuses, replicas_on
from mesh.controller.report.status_report import build_status
from mesh.status import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, desired, gateway, picture, replica, target

HEAD = Node(node_id="n1", is_head=True, address="10.0.0.3")
EMPTIED = Node(node_id="n2", address="10.0.0.4", is_cordoned=True, is_emptied=True, ends_at_s=math.inf)
NO_ROOM = "1 of 4 replicas wait for room"


def status(
    *replicas: Replica, second: Node = EMPTIED, gateways: tuple[Gateway, ...] = (), verdict: Verdict | None = None
) -> control_pb2.NodeStatus:
    """Of the second node, whose drain began with three replicas."""
    wanted = replace(desired(target()), cordons={"n2": control_pb2.Cordon(node_id="n2", is_draining=True, replicas=3)})
    seen = Observed(replicas=replicas, nodes=(second, HEAD), gateways=gateways)
    found = node_status("n2", picture(wanted, seen, {} if verdict is None else {KEY: verdict}))
    assert found is not None
    return found


def there(state: ReplicaState = ReplicaState.PENDING_MIGRATION) -> Replica:
    return replace(replica(state), bundle_nodes=("n2",))


def judged(**fields: object) -> Verdict:
    healthy = Verdict(target(), DeploymentStatus.HEALTHY, DeploymentStatusTrigger.UNSPECIFIED)
    return replace(healthy, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (Node(node_id="n2"), "READY"),
        (Node(node_id="n2", is_cordoned=True), "CORDONED"),
        (Node(node_id="n2", ends_at_s=7.0), "LEAVING"),
        (Node(node_id="n2", ends_at_s=7.0, is_cordoned=True), "LEAVING"),
        (EMPTIED, "DRAINED"),
    ],
)
def test_a_node_is_in_one_state(node: Node, word: str) -> None:
    assert status(second=node).status == word


def test_the_progress_of_a_drain_is_shown() -> None:
    shown = status(there(), there(ReplicaState.STOPPING), replica())
    assert (shown.status, shown.replicas, shown.moved_replicas, shown.replicas_to_move) == ("DRAINING", 2, 1, 3)
    # Some were still starting when it began.
    shown = status(*[there() for _ in range(4)])
    assert (shown.moved_replicas, shown.replicas_to_move) == (0, 4)


def test_a_drain_is_over_when_the_gateway_has_left_too() -> None:
    """Except on the head, which keeps its gateway."""
    assert status(gateways=(gateway(node_id="n2"),)).status == "DRAINING"
    assert status(second=replace(EMPTIED, is_head=True), gateways=(gateway(node_id="n2"),)).status == "DRAINED"


def test_a_placement_group_is_on_all_its_nodes() -> None:
    """One that waits for its process is on none."""
    gang = replace(replica(), bundle_nodes=("n1", "n2", "n2"))
    assert status(gang).replicas == 1
    seen = picture(desired(), Observed(replicas=(gang, replace(there(), is_placed=False))), {})
    assert (replicas_on("n1", seen), replicas_on("n2", seen)) == (1, 1)


def test_what_keeps_replicas_from_moving_is_shown() -> None:
    assert status(there(), verdict=judged(shortage=f"{NO_ROOM}.")).message == f"app/Model: {NO_ROOM}"
    assert status(there(), verdict=judged(is_given_up=True, message="ValueError: no\nTraceback")).message == (
        "app/Model: ValueError: no"
    )
    paused = replace(target(), predecessor=target(version="v1"), spec=control_pb2.DeploymentSpec(is_paused=True))
    assert "`mesh resume app` lets it go on" in status(there(), verdict=judged(target=paused)).message
    assert status(there(), verdict=judged()).message == ""
    assert status(replica(), verdict=judged(shortage=NO_ROOM)).message == "", "none of it is on that node"
    assert status(there(ReplicaState.STOPPING), verdict=judged(shortage=NO_ROOM)).message == "", "it is leaving"


def test_a_process_that_ray_makes_slowly_keeps_no_replica_from_moving() -> None:
    """Its runtime environment may take minutes: `mesh drain` goes on waiting."""
    starting = replace(replica(ReplicaState.STARTING), is_placed=False, bundle_nodes=("n1",))
    roomy = replace(HEAD, total={"CPU": 8.0}, available={"CPU": 8.0})
    seen = Observed(replicas=(there(), starting), nodes=(EMPTIED, roomy))
    verdict = next_verdict(judged(), target(1), seen.replicas, NO_FAILURES, ClusterResources(seen, 60.0))
    assert "1 of 1 replicas wait for Ray to start their processes." in verdict.message
    assert status(*seen.replicas, verdict=verdict).message == ""


def test_the_status_lists_the_head_first_and_nodes_only_where_all_is_asked_for() -> None:
    seen = picture(desired(), Observed(nodes=(EMPTIED, HEAD)), {})
    assert [each.address for each in build_status(seen).nodes] == ["10.0.0.3", "10.0.0.4"]
    assert [each.is_head for each in node_statuses(seen)] == [True, False]
    assert not build_status(seen, ["app"]).nodes


def test_a_node_is_not_drained_while_a_replica_does_not_say_where_it_is() -> None:
    """A controller that has restarted waits for the answer of one that is busy; to switch its node off would end it."""
    silent = replace(replica(ReplicaState.RECOVERING), is_placed=True, bundle_nodes=())
    assert status(silent).status == "DRAINING"
    wanted = replace(desired(target()), cordons={"n2": control_pb2.Cordon(node_id="n2", is_draining=True)})
    elsewhere = replace(silent, bundle_nodes=("n1",))
    assert newly_drained(wanted, Observed(replicas=(silent,), nodes=(EMPTIED, HEAD))) == []
    assert newly_drained(wanted, Observed(replicas=(elsewhere,), nodes=(EMPTIED, HEAD))) == [EMPTIED]
