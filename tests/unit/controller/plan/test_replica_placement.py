"""Placement: where replicas go, which ones leave, and what happens without room (items 191, 193)."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan.cluster_picture import DepartedReplica, Node, Observed, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.node_resources import could_hold
from mesh.controller.plan.replica_placement import ANYWHERE, DeploymentPlacement, NodeAssignment, Shortage
from mesh.defaults.control_settings import ControllerSettings
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, replica

NOW_S = 1000.0
EPSILON = 1e-6
TRUST_S, PATIENCE_S = ControllerSettings().assign_timeout_s, ControllerSettings().unschedulable_after_s


def cpus(amount: float) -> Bundle:
    return (("CPU", amount),)


def asks(*bundles: float, strategy: str = "", per_node_max: int = 0) -> ResourceRequest:
    return ResourceRequest(tuple(cpus(each) for each in bundles), strategy, per_node_max)


ONE_CPU = asks(1)


def node(name: str, total: float = 4.0, available: float | None = None, **facts: object) -> Node:
    free = total if available is None else available
    return Node(node_id=name, total={"CPU": total}, available={"CPU": free}, **facts)  # type: ignore[arg-type]


def on(
    node_id: str, state: ReplicaState = ReplicaState.RUNNING, *, held: float = 1.0, created_at_s: float = 0.0
) -> Replica:
    return replace(replica(state, created_at_s=created_at_s), bundles=(cpus(held),), bundle_nodes=(node_id,))


def unplaced(node_id: str = "", *, age_s: float = 0.0) -> Replica:
    starting = on(node_id, ReplicaState.STARTING, created_at_s=NOW_S - age_s)
    return replace(starting, is_placed=False, bundle_nodes=(node_id,) if node_id else ())


def room(
    nodes: Sequence[Node],
    *replicas: Replica,
    request: ResourceRequest = ONE_CPU,
    others: Sequence[Replica] = (),
    departed: Sequence[DepartedReplica] = (),
) -> DeploymentPlacement:
    """For the deployment that has `replicas`; `others` belong to another one."""
    seen = Observed(nodes=tuple(nodes), replicas=(*replicas, *others), departed=tuple(departed))
    return DeploymentPlacement(ClusterResources(seen, NOW_S), request, replicas, "v2")


def shortage(nodes: Sequence[Node], *replicas: Replica, **more: Any) -> Shortage:
    return room(nodes, *replicas, **more).reserve_for_waiting()


def to_preempt(placement: DeploymentPlacement, candidates: Sequence[Replica], most: int) -> list[Replica]:
    """Of `candidates`, those that would stop for the replicas that wait."""
    unschedulable = placement.reserve_for_waiting().unschedulable
    chosen = placement.replicas_to_preempt(candidates, most, unschedulable)
    assert placement.replicas_to_preempt(candidates, most, unschedulable) == chosen, "asking has an effect"
    return chosen


def node_ids(assignments: Sequence[NodeAssignment]) -> list[str]:
    return [assignment.node_ids[0] if assignment.node_ids else "" for assignment in assignments]


# ---- where replicas go ----


def test_replicas_are_spread_over_nodes() -> None:
    """Among equals the head comes last (item 193)."""
    nodes = [node("head", is_head=True), node("a"), node("b")]
    assert node_ids(room(nodes).reserve(4)) == ["a", "b", "head", "a"]


def test_the_deployment_s_own_replicas_count_before_all_others() -> None:
    nodes = [node("a"), node("b")]
    assert node_ids(room(nodes, on("a"), others=[on("b"), on("b")]).reserve(1)) == ["b"]
    assert node_ids(room(nodes, others=[on("a")]).reserve(1)) == ["b"]


def test_a_node_that_is_being_drained_gets_nothing() -> None:
    """New replicas go to other nodes (item 192)."""
    assert node_ids(room([node("a", ends_at_s=math.inf), node("b")]).reserve(2)) == ["b", "b"]


def test_what_other_users_of_the_cluster_hold_is_not_given_away() -> None:
    assert node_ids(room([node("a", 4, available=1), node("b", 4, available=0)]).reserve(2)) == ["a", ""]


def test_what_was_just_given_away_is_not_given_again_before_ray_reports_it() -> None:
    nodes = [node("a", 2, available=2)]
    assert room(nodes, unplaced("a"), unplaced("a")).reserve(1) == [ANYWHERE]


def test_a_replica_that_asks_for_nothing_always_finds_a_node() -> None:
    assert node_ids(room([node("a", 0)], request=asks(0)).reserve(2)) == ["a", "a"]


def test_a_start_without_room_waits_in_ray_s_queue() -> None:
    """There the cluster's autoscaler sees it."""
    assert room([node("a", 1)]).reserve(2) == [NodeAssignment(("a",)), ANYWHERE]


def test_a_start_that_must_not_run_just_anywhere_waits_with_us() -> None:
    """With `max_replicas_per_node` the node is ours to choose (item 87)."""
    request = asks(1, per_node_max=1)
    assert node_ids(room([node("a"), node("b")], on("a"), request=request).reserve(3)) == ["b"]
    leaving = on("a", ReplicaState.STOPPING)
    assert room([node("a")], leaving, request=request).reserve(1) == []


def test_a_node_that_has_probably_died_is_the_last_choice() -> None:
    lost = DepartedReplica(
        replica_id="r", deployment=KEY, at_s=NOW_S, is_lost=True, is_node_lost=True, bundle_nodes=("a",)
    )
    assert node_ids(room([node("a"), node("b", 1)], departed=[lost]).reserve(2)) == ["b", "a"]


def test_bundles_lie_as_the_strategy_says() -> None:
    """PACK, SPREAD and their strict forms hold (item 88)."""
    nodes = [node("a", 2), node("b", 2), node("c", 2)]

    def lie(strategy: str, *bundles: float) -> list[NodeAssignment]:
        return room(nodes, request=asks(*bundles, strategy=strategy)).reserve(1)

    assert lie("PACK", 1, 1) == [NodeAssignment(("a", "a"))]
    assert lie("PACK", 1, 2) == [NodeAssignment(("b", "a"))]
    assert lie("STRICT_PACK", 1, 2) == [ANYWHERE]
    assert lie("SPREAD", 1, 1) == [NodeAssignment(("a", "b"))]
    assert lie("SPREAD", 1, 1, 1, 1) == [NodeAssignment(("a", "b", "c", "a"))]
    assert lie("STRICT_SPREAD", 1, 1, 1, 1) == [ANYWHERE]
    assert lie("STRICT_SPREAD", 1, 1, 1) == [NodeAssignment(("a", "b", "c"))]


# ---- when there is no room ----


def test_a_waiting_replica_is_short_only_when_no_room_is_coming() -> None:
    full = [node("a", 1, available=0)]
    assert shortage(full, on("a"), unplaced()).unschedulable == 1
    assert shortage(full, on("a", ReplicaState.STOPPING), unplaced()).unschedulable == 0
    gone = DepartedReplica(
        replica_id="r", deployment=KEY, at_s=NOW_S - 0.1, is_lost=False, bundles=(cpus(1),), bundle_nodes=("a",)
    )
    assert shortage(full, unplaced(), departed=[gone]).unschedulable == 0
    assert shortage(full, unplaced(), departed=[replace(gone, at_s=NOW_S - 10.0)]).unschedulable == 1


def test_a_node_on_paper_is_believed_for_some_time() -> None:
    full = [node("a", 1, available=0)]
    assert shortage(full, unplaced("a", age_s=TRUST_S - 1.0)).unschedulable == 0
    assert shortage(full, unplaced("a", age_s=TRUST_S + 1.0)).unschedulable == 1


def test_a_replica_that_waits_for_very_long_is_short_whatever_the_accounts_say() -> None:
    assert shortage([node("a")], unplaced("a", age_s=PATIENCE_S - 1.0)).unschedulable == 0
    assert shortage([node("a")], unplaced("a", age_s=PATIENCE_S + 1.0)).unschedulable == 1


def test_those_make_room_whose_leaving_helps() -> None:
    nodes = [node("a", 1, available=0), node("b", 2, available=0)]
    small, large = replace(on("a"), version="v1"), replace(on("b", held=2.0), version="v1")
    new = replace(unplaced(), bundles=(cpus(2),))
    assert to_preempt(room(nodes, small, large, new, request=asks(2)), [small, large], 2) == [large]


def test_several_make_room_where_one_is_not_enough() -> None:
    nodes = [node("a", 2, available=0), node("b", 1, available=0)]
    olds = [replace(on(name), version="v1") for name in ("a", "b", "a")]
    new = replace(unplaced(), bundles=(cpus(2),))
    made = room(nodes, *olds, new, request=asks(2))
    assert to_preempt(made, olds, 1) == []
    assert to_preempt(made, olds, 2) == [olds[0], olds[2]]


def test_preempting_reserves_no_more_than_the_preempted_replicas_give() -> None:
    """Waiting replicas that are stuck for another reason have their reservation already."""
    old = replace(on("a"), version="v1")
    waiting = [unplaced("b", age_s=PATIENCE_S + 1.0), unplaced("b", age_s=PATIENCE_S + 1.0)]
    made = room([node("a", 1, available=0), node("b", 10)], old, *waiting)
    unschedulable = made.reserve_for_waiting().unschedulable
    before = sum(each.free_after_drain["CPU"] for each in made.resources.nodes.values())
    made.preempt([old], unschedulable)
    assert sum(each.free_after_drain["CPU"] for each in made.resources.nodes.values()) == before


def test_a_placement_group_gets_room_on_several_nodes() -> None:
    nodes = [node("a", 1, available=0), node("b", 1, available=0)]
    old = replace(on("a"), version="v1", bundles=(cpus(1), cpus(1)), bundle_nodes=("a", "b"))
    request = asks(1, 1, strategy="STRICT_SPREAD")
    new = replace(unplaced(), bundles=request.bundles)
    assert to_preempt(room(nodes, old, new, request=request), [old], 1) == [old]


def test_a_bound_replica_that_is_stuck_is_started_on_another_node() -> None:
    waiting = unplaced("a", age_s=PATIENCE_S + 1.0)
    assert room([node("a")], waiting, request=asks(1, per_node_max=1)).is_stuck_on_node(waiting)
    assert not room([node("a")], waiting).is_stuck_on_node(waiting)


def test_whether_the_cluster_could_ever_hold_a_replica() -> None:
    nodes = [node("a", 2, available=0), node("b", 4, available=0)]
    assert could_hold(asks(4), nodes)
    assert not could_hold(asks(5), nodes)
    assert could_hold(asks(4, 2, strategy="STRICT_SPREAD"), nodes)
    assert not could_hold(asks(4, 2, strategy="STRICT_PACK"), nodes)


# ---- who leaves ----


def test_victims_are_off_the_head_on_the_emptiest_node_and_the_newest() -> None:
    """The criteria apply in this order (item 191)."""
    nodes = [node("head", is_head=True), node("a"), node("b")]
    head = on("head", created_at_s=9.0)
    a_old, a_new = on("a", created_at_s=1.0), on("a", created_at_s=5.0)
    b = on("b", created_at_s=2.0)
    crowd = [on("b"), on("b")]
    ordered = room(nodes, head, a_old, a_new, b, others=crowd).by_stop_preference([head, a_old, a_new, b])
    assert ordered == [a_new, a_old, b, head]


def test_victims_empty_one_node_after_the_other() -> None:
    """Whole nodes become free (item 191)."""
    replicas = [
        on("a", created_at_s=1.0),
        on("b", created_at_s=2.0),
        on("a", created_at_s=3.0),
        on("b", created_at_s=4.0),
    ]
    ordered = room([node("a"), node("b")], *replicas).by_stop_preference(replicas)
    assert [each.node_id for each in ordered] == ["b", "b", "a", "a"]


# ---- properties ----

amounts = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])
clusters = st.lists(
    st.builds(
        lambda total, taken, ends: (total, max(0.0, total - taken), ends),
        st.integers(0, 8).map(float),
        st.integers(0, 3).map(float),
        st.sampled_from([None, None, None, math.inf]),
    ),
    min_size=1,
    max_size=6,
).map(lambda facts: [node(f"n{i}", total, free, ends_at_s=ends) for i, (total, free, ends) in enumerate(facts)])


@given(nodes=clusters, held=st.lists(st.tuples(st.integers(0, 5), amounts), max_size=8), asked=amounts, data=st.data())
def test_no_node_is_given_more_than_it_has(
    nodes: list[Node], held: list[tuple[int, float]], asked: float, data: st.DataObject
) -> None:
    """Nor more of the deployment than it may hold, nor anything while it is being drained."""
    per_node_max = data.draw(st.integers(0, 3))
    replicas = [replace(on(f"n{number % len(nodes)}", held=amount)) for number, amount in held]
    request = asks(asked, per_node_max=per_node_max)
    assignments = room(nodes, *replicas, request=request).reserve(20)
    given_away = Counter(each for assignment in assignments for each in assignment.node_ids)
    for each in nodes:
        own = sum(replica.bundles[0][0][1] for replica in replicas if replica.node_id == each.node_id)
        count = given_away[each.node_id]
        if not count:
            continue
        assert each.ends_at_s is None
        assert count * asked <= min(each.available["CPU"], each.total["CPU"] - own) + EPSILON
        there = sum(replica.node_id == each.node_id for replica in replicas)
        assert not per_node_max or there + count <= per_node_max


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), count=st.integers(0, 30))
def test_no_node_with_room_has_fewer_than_another_that_was_preferred(sizes: list[int], count: int) -> None:
    """Spread: a node gets its n-th replica only when every other has n - 1 or is full."""
    nodes = [node(f"n{i}", float(size)) for i, size in enumerate(sizes)]
    chosen = [each for each in node_ids(room(nodes).reserve(count)) if each]
    assert len(chosen) == min(count, sum(sizes))
    got = Counter(chosen)
    for full, size in zip(nodes, sizes, strict=True):
        if got[full.node_id] < size:
            assert max(got.values(), default=0) <= got[full.node_id] + 1


@given(
    nodes=clusters,
    bundles=st.lists(st.sampled_from([1.0, 2.0]), min_size=2, max_size=4),
    strategy=st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
)
def test_bundles_never_exceed_their_nodes_and_keep_their_strategy(
    nodes: list[Node], bundles: list[float], strategy: str
) -> None:
    used: Counter[str] = Counter()
    for assignment in room(nodes, request=asks(*bundles, strategy=strategy)).reserve(4):
        if not assignment.node_ids:
            continue
        for node_id, amount in zip(assignment.node_ids, bundles, strict=True):
            used[node_id] += amount  # type: ignore[assignment]
        assert strategy != "STRICT_PACK" or len(set(assignment.node_ids)) == 1
        assert strategy != "STRICT_SPREAD" or len(set(assignment.node_ids)) == len(bundles)
    free = {each.node_id: each.available["CPU"] if each.ends_at_s is None else 0.0 for each in nodes}
    assert all(amount <= free[node_id] + EPSILON for node_id, amount in used.items())


def test_an_unreadable_runtime_environment_stops_no_planning() -> None:
    spec = control_pb2.DeploymentSpec()
    spec.options.actor.runtime_env_json = "{"
    broken = replace(unplaced("n1", age_s=TRUST_S + 1), spec=spec)
    assert room([node("n1")], others=[broken]).reserve(1) == [NodeAssignment(("n1",))]


@given(nodes=clusters, olds=st.lists(st.tuples(st.integers(0, 5), amounts), max_size=6), asked=amounts)
def test_no_replica_is_preempted_without_effect(nodes: list[Node], olds: list[tuple[int, float]], asked: float) -> None:
    """A preempted replica lets a waiting one start, and at most `most` are preempted."""
    old = [replace(on(f"n{number % len(nodes)}", held=amount), version="v1") for number, amount in olds]
    waiting = [replace(unplaced(), bundles=(cpus(asked),)) for _ in range(2)]
    makers = to_preempt(room(nodes, *old, *waiting, request=asks(asked)), old, 2)
    assert len(makers) <= 2
    if makers:
        left = [replace(each, state=ReplicaState.STOPPING) if each in makers else each for each in old]
        before = shortage(nodes, *old, *waiting, request=asks(asked)).unschedulable
        assert shortage(nodes, *left, *waiting, request=asks(asked)).unschedulable < before
