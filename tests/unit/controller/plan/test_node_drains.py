"""The planners and nodes that operators cordon and drain: what starts where, what stops when."""

import math
from dataclasses import replace

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.actions import KillReplica, Plan, Reason, StartReplica, StopGateway, StopReplica
from mesh.controller.plan.cluster_picture import DepartedReplica, Gateway, Node, Observed, Replica
from mesh.controller.plan.planner import plan
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.status import ReplicaState
from tests.unit.controller.builders import KEY, desired, gateway, replica, target

NOW_S = 1000.0
ONE_CPU = ResourceRequest(((("CPU", 1.0),),))
HEAD = Node(node_id="n1", is_head=True, total={"CPU": 8.0}, available={"CPU": 8.0})
CORDONED = Node(node_id="n2", total={"CPU": 8.0}, available={"CPU": 8.0}, is_cordoned=True)
EMPTIED = replace(CORDONED, is_emptied=True, ends_at_s=math.inf)
AVOIDING = frozenset({"n2"})


def cluster(
    *replicas: Replica, second: Node = CORDONED, head: Node = HEAD, gateways: tuple[Gateway, ...] = ()
) -> Observed:
    return Observed(replicas=replicas, nodes=(head, second), gateways=gateways)


def on(node_id: str, state: ReplicaState = ReplicaState.RUNNING) -> Replica:
    return replace(replica(state), bundle_nodes=(node_id,))


def leaving(count: int = 1) -> list[Replica]:
    """Replicas on the node that is emptied."""
    state = ReplicaState.PENDING_MIGRATION
    return [replace(on("n2", state), node_ends_at_s=math.inf) for _ in range(count)]


def waiting(avoided: frozenset[str] = frozenset(), node_id: str = "") -> Replica:
    """In Ray's queue; with a node one that was assigned that a moment ago."""
    created_at_s = NOW_S if node_id else NOW_S - 20.0
    nodes = (node_id,) if node_id else ()
    return replace(
        replica(ReplicaState.STARTING, created_at_s=created_at_s),
        is_placed=False,
        bundle_nodes=nodes,
        avoided_nodes=avoided,
    )


def planned(seen: Observed, wanted: int, **fields: object) -> Plan:
    aim = replace(target(wanted), request=ONE_CPU, **fields)  # type: ignore[arg-type]
    return plan(desired(aim), seen, NOW_S)


def starts(made: Plan) -> list[StartReplica]:
    return [action for action in made.actions if isinstance(action, StartReplica)]


# ---- cordons -------------------------------------------------------------------------------------------------------


def test_nothing_starts_on_a_cordoned_node_wherever_ray_finds_room() -> None:
    made = starts(planned(cluster(), 3))
    assert [each.assignment for each in made] == [NodeAssignment(("n1",), AVOIDING)] * 3
    full = replace(HEAD, available={"CPU": 0.0})
    assert [each.assignment for each in starts(planned(cluster(head=full), 1))] == [NodeAssignment((), AVOIDING)]


def test_what_runs_on_a_cordoned_node_stays() -> None:
    assert planned(cluster(on("n2"), on("n2")), 2) == Plan()


def test_a_replica_that_starts_on_a_node_when_it_is_cordoned_goes_on() -> None:
    assert planned(cluster(on("n2", ReplicaState.STARTING)), 1) == Plan()


def test_a_replica_in_the_queue_of_ray_starts_again_when_the_cordons_have_changed() -> None:
    astray = waiting()
    made = planned(cluster(astray), 1)
    assert made == Plan(
        (
            StartReplica(KEY, NodeAssignment(("n1",), AVOIDING), Reason.CORDON),
            KillReplica(astray.replica_id, Reason.CORDON),
        )
    )
    # It avoids a node that takes replicas again.
    uncordoned = replace(CORDONED, is_cordoned=False)
    assert len(starts(planned(cluster(waiting(AVOIDING), second=uncordoned), 1))) == 1
    assert planned(cluster(waiting(AVOIDING)), 1) == Plan(), "it knows the cordons of now"
    assert planned(Observed(replicas=(waiting(AVOIDING),), nodes=(HEAD,)), 1) == Plan(), "the node is gone"


def test_a_replica_that_was_just_assigned_a_node_is_left_alone() -> None:
    assert planned(cluster(waiting(node_id="n1")), 1) == Plan()


def test_scaling_down_frees_cordoned_nodes_first() -> None:
    """Even where another node has fewer replicas."""
    cordoned = [on("n2"), on("n2")]
    (stop,) = planned(cluster(on("n1"), *cordoned), 2).actions
    assert isinstance(stop, StopReplica)
    assert stop.replica_id in {each.replica_id for each in cordoned}
    third = Node(node_id="n3", total={"CPU": 8.0}, available={"CPU": 8.0})
    seen = cluster(on("n3"), *cordoned)
    (stop,) = planned(replace(seen, nodes=(*seen.nodes, third)), 2).actions
    assert isinstance(stop, StopReplica)
    assert stop.replica_id in {each.replica_id for each in cordoned}


# ---- drains --------------------------------------------------------------------------------------------------------


def test_replicas_move_as_the_surge_allows_and_stop_when_others_serve() -> None:
    """All start at once where Ray ends the node (item 192), a fifth at a time where an operator waits."""
    moving = leaving(5)
    made = planned(cluster(*moving, second=EMPTIED), 5)
    assert [each.reason for each in starts(made)] == [Reason.NODE_DRAIN]
    assert len(made.actions) == 1
    hurried = replace(EMPTIED, is_emptied=False)
    assert len(starts(planned(cluster(*moving, second=hurried), 5))) == 5
    made = planned(cluster(*moving, on("n1"), second=EMPTIED), 5)
    assert [each.reason for each in made.actions if isinstance(each, StopReplica)] == [Reason.NODE_DRAIN]


def test_nothing_stops_for_a_drain_before_others_serve() -> None:
    starting = on("n1", ReplicaState.STARTING)
    assert planned(cluster(*leaving(3), starting, second=EMPTIED), 3) == Plan()


def test_nothing_stops_for_a_drain_while_replicas_are_lost() -> None:
    """Two of five have died: the new one that serves takes the place of one of them."""
    made = planned(cluster(*leaving(2), on("n1"), on("n1"), second=EMPTIED), 5)
    assert not [each for each in made.actions if isinstance(each, StopReplica)]


def test_a_gateway_stays_as_long_as_replicas_of_its_node() -> None:
    """Then it goes at once, and does not linger for others to come (item 209)."""
    (moving,) = leaving()
    wanted = desired(replace(target(1), request=ONE_CPU), grpc_port=9000)
    gateways = (gateway(), gateway(node_id="n2"))
    seen = cluster(moving, second=EMPTIED, gateways=gateways)
    assert not [each for each in plan(wanted, seen, NOW_S).actions if isinstance(each, StopGateway)]
    gone = DepartedReplica(
        replica_id=moving.replica_id, deployment=KEY, at_s=NOW_S, is_lost=False, bundle_nodes=("n2",)
    )
    empty = replace(cluster(on("n1"), second=EMPTIED, gateways=gateways), departed=(gone,))
    assert plan(wanted, empty, NOW_S) == Plan((StopGateway("g-n2", Reason.UNWANTED_NODE),))


def test_the_head_keeps_its_gateway() -> None:
    """The cluster ends with it, so its clients have to go nowhere."""
    drained_head = replace(HEAD, is_cordoned=True, is_emptied=True, ends_at_s=math.inf)
    seen = cluster(head=drained_head, second=replace(CORDONED, is_cordoned=False), gateways=(gateway(),))
    assert plan(desired(grpc_port=9000), seen, NOW_S) == Plan()
