"""mesh.controller.plan.planner: the actions missing between the desired and the observed state."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.desired_state import Desired
from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan import node_resources
from mesh.controller.plan.actions import (
    KillGateway,
    KillReplica,
    Plan,
    Reason,
    ReconfigureReplica,
    StartGateway,
    StartReplica,
    StopGateway,
    StopReplica,
)
from mesh.controller.plan.cluster_picture import (
    DepartedReplica,
    Failures,
    Gateway,
    GatewaySlot,
    Node,
    Observed,
    Replica,
)
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.planner import _next_actions, is_settled, plan
from mesh.controller.plan.replica_placement import NodeAssignment
from mesh.options.deployments.drain_policy import DrainPolicy
from mesh.settings import settings
from mesh.status import GatewayStatus, ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, NODE, desired, gateway, observed, replica, target

NOW_S = 1000.0
LINGER_S = settings().controller.gateway_linger_s


def test_nothing_missing_is_an_empty_plan() -> None:
    wanted = desired(target(1), grpc_port=9000)
    assert plan(wanted, observed(replica(), gateways=(gateway(),)), NOW_S) == Plan()


def test_a_deployment_gets_its_replicas() -> None:
    start = StartReplica(KEY, NodeAssignment(("n1",)), Reason.SCALE_UP)
    assert plan(desired(target(2)), observed(), NOW_S) == Plan((start, start))


def test_replicas_of_a_deleted_application_are_drained() -> None:
    running = replica()
    assert plan(desired(), observed(running), NOW_S) == Plan((StopReplica(running.replica_id, Reason.DELETED),))


def test_a_replica_without_a_process_is_killed_as_it_cannot_drain() -> None:
    waiting = replace(replica(ReplicaState.STARTING), is_placed=False)
    assert plan(desired(), observed(waiting), NOW_S) == Plan((KillReplica(waiting.replica_id, Reason.DELETED),))


def test_a_replica_that_is_still_starting_is_killed_as_it_has_no_calls() -> None:
    """Its constructor may hang: a drain would wait for it."""
    starting = replica(ReplicaState.STARTING)
    assert plan(desired(), observed(starting), NOW_S) == Plan((KillReplica(starting.replica_id, Reason.DELETED),))


def test_a_drain_timeout_of_zero_kills_at_once() -> None:
    """Such a replica is not drained (item 153)."""
    running = replace(replica(), drain=DrainPolicy(0.0))
    assert plan(desired(), observed(running), NOW_S) == Plan((KillReplica(running.replica_id, Reason.DELETED),))


def test_a_replica_that_outlasts_its_drain_timeout_is_killed() -> None:
    """It has the timeout and a margin, no longer (item 153)."""
    leaving = replace(replica(ReplicaState.STOPPING), drain=DrainPolicy(20.0), since_at_s=NOW_S)
    assert plan(desired(), observed(leaving), NOW_S + 20.0) == Plan()
    overdue_s = NOW_S + 20.0 + DrainPolicy().margin_s + 0.1
    assert plan(desired(), observed(leaving), overdue_s) == Plan((KillReplica(leaving.replica_id, Reason.OVERDUE),))


def test_a_changed_configuration_reaches_running_replicas() -> None:
    running = replace(replica(), config_version="c0")
    assert plan(desired(target(1)), observed(running), NOW_S) == Plan((ReconfigureReplica(running.replica_id),))


def test_a_shutdown_drains_gateways_before_replicas() -> None:
    running, serving = replica(), gateway()
    ending = desired(is_shutting_down=True, grpc_port=9000)
    assert plan(ending, observed(running, gateways=(serving,)), NOW_S) == Plan(
        (StopGateway(serving.gateway_id, Reason.SHUTDOWN),)
    )
    draining = replace(serving, state=GatewayStatus.DRAINING, since_at_s=NOW_S)
    assert plan(ending, observed(running, gateways=(draining,)), NOW_S) == Plan()
    assert plan(ending, observed(running), NOW_S) == Plan((StopReplica(running.replica_id, Reason.SHUTDOWN),))
    assert plan(ending, observed(), NOW_S) == Plan()


def on_nodes(*replicas: Replica, node: Node | None = None, gateways: tuple[Gateway, ...] = ()) -> Observed:
    """With a second node that is not the head."""
    return replace(observed(*replicas, gateways=gateways), nodes=(NODE, node or Node(node_id="n2")))


def test_every_node_with_replicas_and_the_head_get_a_gateway() -> None:
    """The head has one without replicas too (item 200)."""
    wanted = desired(target(1), grpc_port=9000)
    seen = on_nodes(replace(replica(), bundle_nodes=("n2",)), gateways=(gateway(),))
    assert plan(wanted, seen, NOW_S) == Plan((StartGateway(GatewaySlot("n2"), Reason.SCALE_UP),))
    assert plan(desired(grpc_port=9000), on_nodes(), NOW_S) == Plan((StartGateway(GatewaySlot("n1"), Reason.SCALE_UP),))


def test_a_gateway_leaves_a_node_some_time_after_the_last_replica() -> None:
    """It stays when a replica comes back meanwhile (item 209)."""
    gone = DepartedReplica(replica_id="r", deployment=KEY, at_s=NOW_S, is_lost=False, bundle_nodes=("n2",))
    seen = replace(on_nodes(gateways=(gateway(), gateway(node_id="n2"))), departed=(gone,))
    assert plan(desired(grpc_port=9000), seen, NOW_S + LINGER_S - 1.0) == Plan()
    assert plan(desired(grpc_port=9000), seen, NOW_S + LINGER_S) == Plan((StopGateway("g-n2", Reason.UNWANTED_NODE),))


def test_a_gateway_leaves_a_node_that_is_being_drained() -> None:
    """Its clients go to other nodes before the node ends (item 192)."""
    seen = on_nodes(node=Node(node_id="n2", ends_at_s=math.inf), gateways=(gateway(), gateway(node_id="n2")))
    assert plan(desired(grpc_port=9000), seen, NOW_S) == Plan((StopGateway("g-n2", Reason.UNWANTED_NODE),))


def test_replicas_on_a_node_that_is_being_drained_are_replaced_elsewhere_first() -> None:
    """The old one stops when the new one serves (item 192)."""
    draining = Node(node_id="n2", ends_at_s=NOW_S + 60.0)
    moving = replace(replica(ReplicaState.PENDING_MIGRATION), bundle_nodes=("n2",), node_ends_at_s=NOW_S + 60.0)
    wanted = desired(target(1))
    assert plan(wanted, on_nodes(moving, node=draining), NOW_S) == Plan(
        (StartReplica(KEY, NodeAssignment(("n1",)), Reason.NODE_DRAIN),)
    )
    other = replace(replica(), bundle_nodes=("n1",))
    assert plan(wanted, on_nodes(moving, other, node=draining), NOW_S) == Plan(
        (StopReplica(moving.replica_id, Reason.NODE_DRAIN),)
    )


def test_a_replica_leaves_in_time_before_its_node_ends_replaced_or_not() -> None:
    """Its drain timeout has to fit before the deadline (item 192)."""
    draining = Node(node_id="n2", ends_at_s=NOW_S + 60.0)
    moving = replace(replica(ReplicaState.PENDING_MIGRATION), bundle_nodes=("n2",), node_ends_at_s=NOW_S + 60.0)
    starting = replace(replica(ReplicaState.STARTING), bundle_nodes=("n1",))
    seen = on_nodes(moving, starting, node=draining)
    assert plan(desired(target(1)), seen, NOW_S + 34.0) == Plan()
    assert plan(desired(target(1)), seen, NOW_S + 35.0) == Plan((StopReplica(moving.replica_id, Reason.NODE_DRAIN),))


def test_a_replica_that_starts_on_a_node_that_is_being_drained_is_started_elsewhere() -> None:
    starting = replace(replica(ReplicaState.STARTING), bundle_nodes=("n2",), node_ends_at_s=math.inf)
    seen = on_nodes(starting, node=Node(node_id="n2", ends_at_s=math.inf))
    made = plan(desired(target(1)), seen, NOW_S)
    assert made == Plan(
        (
            StartReplica(KEY, NodeAssignment(("n1",)), Reason.NODE_DRAIN),
            KillReplica(starting.replica_id, Reason.NODE_DRAIN),
        )
    )


def test_only_the_head_gets_a_gateway_when_asked() -> None:
    wanted = desired(grpc_port=9000)
    wanted.gateways.location = control_pb2.GATEWAY_LOCATION_HEAD_ONLY
    assert plan(wanted, Observed(nodes=(NODE, Node(node_id="n2"))), NOW_S) == Plan(
        (StartGateway(GatewaySlot("n1"), Reason.SCALE_UP),)
    )


def test_disabled_gateways_are_stopped() -> None:
    wanted = desired(grpc_port=9000)
    wanted.gateways.location = control_pb2.GATEWAY_LOCATION_DISABLED
    assert plan(wanted, observed(gateways=(gateway(),)), NOW_S) == Plan((StopGateway("g-n1", Reason.UNWANTED_NODE),))


def test_a_broken_gateway_is_killed_so_that_its_name_and_ports_are_free() -> None:
    broken = gateway(GatewayStatus.UNHEALTHY, unhealthy="no answer")
    assert plan(desired(grpc_port=9000), observed(gateways=(broken,)), NOW_S) == Plan(
        (KillGateway("g-n1", Reason.UNHEALTHY),)
    )


def test_a_gateway_that_does_not_finish_draining_is_killed() -> None:
    """Its calls may take as long as the setting allows."""
    draining = replace(gateway(GatewayStatus.DRAINING), since_at_s=NOW_S, drain=DrainPolicy(100.0))
    seen = observed(gateways=(draining,))
    assert plan(desired(), seen, NOW_S + 100.0 + DrainPolicy().margin_s) == Plan()
    assert plan(desired(), seen, NOW_S + 100.0 + DrainPolicy().margin_s + 0.1) == Plan(
        (KillGateway("g-n1", Reason.OVERDUE),)
    )


@pytest.mark.parametrize(("failures", "pause_s"), [(1, 0.5), (3, 2.0), (60, 10.0)])
def test_a_gateway_that_cannot_start_is_retried_ever_more_slowly(failures: int, pause_s: float) -> None:
    seen = replace(
        observed(),
        gateway_failures={GatewaySlot("n1"): Failures(count=failures, last_at_s=NOW_S, message="port taken")},
    )
    assert plan(desired(grpc_port=9000), seen, NOW_S + pause_s - 0.1) == Plan()
    assert plan(desired(grpc_port=9000), seen, NOW_S + pause_s) == Plan(
        (StartGateway(GatewaySlot("n1"), Reason.REPLACEMENT),)
    )


SLOTS = [GatewaySlot("n1", index) for index in range(3)]


def several(processes: int) -> Desired:
    wanted = desired(grpc_port=9000)
    wanted.gateways.processes = processes
    return wanted


def test_a_node_gets_as_many_gateways_as_asked() -> None:
    """Each has a slot of its own (item 200)."""
    assert plan(several(3), observed(), NOW_S) == Plan(tuple(StartGateway(slot, Reason.SCALE_UP) for slot in SLOTS))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_gateway_is_replaced_without_touching_the_others_of_its_node(missing: int) -> None:
    there = tuple(gateway(index=index) for index in range(3) if index != missing)
    failures = {SLOTS[missing]: Failures(count=1, last_at_s=NOW_S, message="killed")}
    seen = replace(observed(gateways=there), gateway_failures=failures)
    assert plan(several(3), seen, NOW_S) == Plan()
    assert plan(several(3), seen, NOW_S + 0.5) == Plan((StartGateway(SLOTS[missing], Reason.REPLACEMENT),))


def test_a_failing_gateway_does_not_hold_up_another_one() -> None:
    seen = replace(observed(), gateway_failures={SLOTS[0]: Failures(count=60, last_at_s=NOW_S, message="no memory")})
    assert plan(several(2), seen, NOW_S) == Plan((StartGateway(SLOTS[1], Reason.SCALE_UP),))


def test_a_draining_gateway_keeps_its_slot_until_it_has_ended() -> None:
    draining = replace(gateway(GatewayStatus.DRAINING, index=1), since_at_s=NOW_S)
    stopping = plan(several(2), observed(gateways=(gateway(), draining)), NOW_S)
    assert stopping == Plan()


def test_ten_thousand_replicas_are_planned_in_one_go() -> None:
    """The plan is linear: what is complete yields nothing, whatever its size."""
    targets = [replace(target(100), key=KEY._replace(name=f"D{number}")) for number in range(100)]
    replicas = [replace(replica(), deployment=each.key) for each in targets for _ in range(100)]
    assert plan(desired(*targets), observed(*replicas), NOW_S) == Plan()


def test_ten_thousand_replicas_are_placed_on_five_hundred_nodes_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan costs one look per replica and view, not one per node."""
    looks = Counter[str]()
    covers = node_resources._covers

    def counted(view: dict[str, float], bundle: Bundle) -> bool:
        looks["all"] += 1
        return covers(view, bundle)

    monkeypatch.setattr(node_resources, "_covers", counted)
    nodes = tuple(Node(node_id=f"n{number}", total={"CPU": 32.0}, available={"CPU": 32.0}) for number in range(500))
    ask = ResourceRequest(((("CPU", 1.0),),))
    targets = [replace(target(100), key=KEY._replace(name=f"D{number}"), request=ask) for number in range(100)]
    made = plan(desired(*targets), Observed(nodes=nodes), NOW_S).actions
    placed = Counter(each.assignment.node_ids[0] for each in made if isinstance(each, StartReplica))
    assert set(placed.values()) == {20}
    assert len(placed) == 500
    assert looks["all"] <= 2 * 10_000


# ---- Settled deployments -------------------------------------------------------------------------------------------

states = st.sampled_from([ReplicaState.RUNNING] * 4 + list(ReplicaState))
any_replicas = st.lists(
    st.builds(
        lambda state, version, **fields: replace(replica(state, version), **fields),
        states,
        st.sampled_from(["v2", "v2", "v2", "v1"]),
        config_version=st.sampled_from(["c1", "c1", "c1", "c0"]),
        unhealthy=st.sampled_from(["", "", "", "no answer"]),
        not_ready=st.sampled_from(["", "", "", "warming up"]),
        node_ends_at_s=st.sampled_from([None, None, None, NOW_S + 60, math.inf]),
        is_placed=st.booleans(),
    ),
    max_size=3,
)
any_failures = st.builds(
    lambda count, last_at_s: Failures(version="v2", count=count, last_at_s=last_at_s, message="broken"),
    st.integers(0, 30),
    st.floats(NOW_S - 100, NOW_S),
)


@given(any_replicas, st.integers(0, 3), any_failures)
def test_a_settled_deployment_has_nothing_to_do(replicas: list[Replica], wanted: int, failures: Failures) -> None:
    """So its plan need not be made in each turn."""
    seen = replace(observed(*replicas), replica_failures={(KEY, "v2"): failures})
    resources = ClusterResources(seen, NOW_S, settings().controller)
    if is_settled(target(wanted), replicas):
        assert list(_next_actions(target(wanted), replicas, resources)) == []


@given(any_replicas, st.integers(0, 3), any_failures)
def test_planning_leaves_what_it_reads_as_it_was(replicas: list[Replica], wanted: int, failures: Failures) -> None:
    """Two plans of one picture are equal: what a plan reserves is gone with it."""
    seen = replace(observed(*replicas), replica_failures={(KEY, "v2"): failures})
    asked = desired(target(wanted), grpc_port=9000)
    assert plan(asked, seen, NOW_S) == plan(asked, seen, NOW_S)


def test_what_is_not_as_wanted_is_not_settled() -> None:
    good = replica()
    wanted = target(1)
    assert is_settled(wanted, [good])
    assert not is_settled(target(2), [good])
    assert not is_settled(replace(wanted, predecessor=target(1, "v1")), [good])
    for change in (
        {"version": "v1"},
        {"config_version": "c0"},
        {"state": ReplicaState.STOPPING},
        {"unhealthy": "no answer"},
        {"not_ready": "warming up"},
        {"node_ends_at_s": math.inf},
    ):
        assert not is_settled(wanted, [replace(good, **change)]), change  # type: ignore[arg-type]
