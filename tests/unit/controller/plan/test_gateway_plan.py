"""mesh.controller.plan.gateway_plan: new options come to the gateways of one node at a time, and bad ones to none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.actions import Action, KillGateway, Reason, StartGateway, StopGateway
from mesh.controller.plan.cluster_picture import Failures, Gateway, GatewaySlot, Node, Observed, Replica
from mesh.controller.plan.gateway_plan import have_all_changed, plan_gateways
from mesh.settings import settings
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.unit.controller.builders import desired, gateway, replica

NOW_S = 1000.0
READY_S = NOW_S - settings().controller.gateway_min_ready_s
NODES = ("n1", "n2", "n3")


def changed(revision: int = 1, before: int = 0, processes: int = 1, processes_before: int = 1) -> Desired:
    """Options whose gateways have not proven themselves yet."""
    former = control_pb2.GatewayOptions(grpc_port=9000, processes=processes_before)
    wanted = replace(
        desired(grpc_port=9000),
        gateways_revision=revision,
        gateways_before=control_pb2.GatewayRevision(number=before, options=former),
    )
    wanted.gateways.processes = processes
    return wanted


def seen(
    *gateways: Gateway, failures: dict[GatewaySlot, int] | None = None, nodes: tuple[str, ...] = NODES
) -> Observed:
    counted = {
        slot: Failures(count=count, last_at_s=NOW_S, message="port taken") for slot, count in (failures or {}).items()
    }
    return Observed(
        replicas=tuple(on(node) for node in nodes),
        gateways=gateways,
        nodes=tuple(Node(node_id=node, is_head=node == "n1") for node in nodes),
        gateway_failures=counted,
    )


def on(node: str) -> Replica:
    return replace(replica(), bundle_nodes=(node,))


def old(node: str = "n1", index: int = 0) -> Gateway:
    return gateway(node_id=node, index=index)


def new(node: str = "n1", since_at_s: float = READY_S, index: int = 0) -> Gateway:
    return replace(gateway(node_id=node, revision=1, index=index), since_at_s=since_at_s)


def starting(node: str = "n1", revision: int = 1) -> Gateway:
    return gateway(GatewayStatus.STARTING, node_id=node, revision=revision)


def planned(wanted: Desired, observed: Observed, now_s: float = NOW_S) -> list[Action]:
    return list(plan_gateways(wanted, observed, now_s))


def update(node: str = "n1", index: int = 0) -> StartGateway:
    return StartGateway(GatewaySlot(node, index, 1), Reason.OPTIONS, replaces=GatewaySlot(node, index, 0))


def test_one_node_gets_a_gateway_with_new_options_first() -> None:
    assert planned(changed(), seen(old("n1"), old("n2"), old("n3"))) == [update("n1")]


def test_nothing_else_happens_while_it_starts() -> None:
    assert planned(changed(), seen(old("n1"), starting("n1"), old("n2"), old("n3"))) == []


def test_the_old_gateway_ends_when_the_new_one_has_served_for_a_while() -> None:
    assert planned(changed(), seen(old("n1"), new("n1", READY_S + 0.1), old("n2"), old("n3"))) == []
    stop = StopGateway("g-n1", Reason.OPTIONS)
    assert planned(changed(), seen(old("n1"), new("n1"), old("n2"), old("n3"))) == [stop]


def test_the_next_node_follows_while_the_old_gateway_drains() -> None:
    draining = replace(old("n1"), state=GatewayStatus.DRAINING, since_at_s=NOW_S)
    assert planned(changed(), seen(draining, new("n1"), old("n2"), old("n3"))) == [update("n2")]


@pytest.mark.parametrize("failures", [1, 5, 50])
def test_new_options_that_do_not_work_reach_one_node_only(failures: int) -> None:
    """There they are tried again, more and more slowly."""
    view = seen(old("n1"), old("n2"), old("n3"), failures={GatewaySlot("n1", 0, 1): failures})
    assert planned(changed(), view) == []
    assert planned(changed(), view, NOW_S + 60.0) == [update("n1")]


def test_a_broken_gateway_with_new_options_is_killed_and_the_old_one_stays() -> None:
    broken = replace(starting("n1"), state=GatewayStatus.UNHEALTHY, unhealthy="port taken")
    assert planned(changed(), seen(old("n1"), broken, old("n2"), old("n3"))) == [
        KillGateway("g-n1-r1", Reason.UNHEALTHY)
    ]


def test_a_gateway_that_dies_is_replaced_by_its_like_until_the_new_options_have_served() -> None:
    view = seen(old("n1"), old("n2"), failures={GatewaySlot("n1", 0, 1): 9})
    assert planned(changed(), view) == [StartGateway(GatewaySlot("n3"), Reason.SCALE_UP)]
    view = seen(new("n1"), old("n2"))
    assert planned(changed(), view) == [StartGateway(GatewaySlot("n3", 0, 1), Reason.SCALE_UP)]


def test_options_with_which_no_gateway_has_ever_started_are_corrected() -> None:
    """The new options come as soon as the last start with the former ones has failed."""
    former, wanted = GatewaySlot("n1"), GatewaySlot("n1", 0, 1)
    last = starting("n1", revision=0)
    assert planned(changed(), seen(last, failures={former: 3}, nodes=("n1",))) == [], "it has no ports to take over"
    view = seen(failures={former: 3}, nodes=("n1",))
    assert planned(changed(), view) == [StartGateway(wanted, Reason.SCALE_UP)]


def test_where_both_options_fail_they_are_tried_in_turns() -> None:
    """A gateway that died has failed once; that alone brings no options that have failed."""
    former, wanted = GatewaySlot("n1"), GatewaySlot("n1", 0, 1)
    tried = []
    failures = {former: 1, wanted: 1}
    for _ in range(4):
        (start,) = planned(changed(), seen(failures=failures, nodes=("n1",)), NOW_S + 60.0)
        assert isinstance(start, StartGateway)
        tried.append(start.slot)
        failures[start.slot] += 1
    assert tried == [former, wanted, former, wanted]


def test_a_gateway_that_serves_no_more_with_its_new_options_holds_the_next_node() -> None:
    view = seen(starting("n1"), old("n2"), old("n3"))
    assert planned(changed(), view) == []
    assert planned(changed(), seen(new("n1"), old("n2"), old("n3"))) == [update("n2")]


def test_all_gateways_of_a_node_change_together() -> None:
    both = [old(node, index) for node in ("n1", "n2") for index in range(2)]
    assert planned(changed(processes=2), seen(*both, nodes=("n1", "n2"))) == [update("n1", 0), update("n1", 1)]


def test_more_gateways_of_a_node_start_when_those_before_share_their_port() -> None:
    more = changed(processes=3)
    view = seen(old("n1"), old("n2"), nodes=("n1", "n2"))
    assert planned(more, view) == [update("n1")], "the others could not listen beside it, and have no former options"
    view = seen(new("n1"), old("n1"), old("n2"), nodes=("n1", "n2"))
    assert planned(more, view) == [StopGateway("g-n1", Reason.OPTIONS)]
    view = seen(new("n1"), old("n2"), nodes=("n1", "n2"))
    others = [StartGateway(GatewaySlot("n1", index, 1), Reason.SCALE_UP) for index in (1, 2)]
    assert planned(more, view) == others, "and the next node waits for them"
    view = seen(*(new("n1", index=index) for index in range(3)), old("n2"), nodes=("n1", "n2"))
    assert planned(more, view) == [update("n2")]


def test_fewer_gateways_of_a_node_are_left_when_the_others_have_the_new_options() -> None:
    fewer = changed(processes=1, processes_before=3)
    three = [old("n1", index) for index in range(3)]
    assert planned(fewer, seen(*three, nodes=("n1",))) == [update("n1")]
    assert planned(fewer, seen(new("n1", since_at_s=NOW_S), *three, nodes=("n1",))) == []
    first, *spare = three
    assert planned(fewer, seen(new("n1"), *three, nodes=("n1",))) == [StopGateway(first.gateway_id, Reason.OPTIONS)]
    draining = replace(first, state=GatewayStatus.DRAINING, since_at_s=NOW_S)
    assert planned(fewer, seen(new("n1"), draining, *spare, nodes=("n1",))) == []
    assert planned(fewer, seen(new("n1"), *spare, nodes=("n1",))) == [StopGateway(spare[1].gateway_id, Reason.OPTIONS)]
    draining = replace(spare[1], state=GatewayStatus.DRAINING, since_at_s=NOW_S)
    assert planned(fewer, seen(new("n1"), spare[0], draining, nodes=("n1",))) == []
    assert not have_all_changed(fewer, seen(new("n1"), three[2], nodes=("n1",)), NOW_S)
    assert have_all_changed(fewer, seen(new("n1"), nodes=("n1",)), NOW_S)


def test_one_of_several_gateways_that_dies_meanwhile_comes_back_at_once() -> None:
    """Their port is one that is shared already."""
    wanted = changed(processes=3, processes_before=2)
    view = seen(old("n1"), old("n1", 1), old("n2"), nodes=("n1", "n2"))
    assert StartGateway(GatewaySlot("n2", 1), Reason.SCALE_UP) in planned(wanted, view)


def test_gateways_of_given_up_options_are_replaced_too() -> None:
    third = changed(revision=2)
    assert planned(third, seen(new("n1"), nodes=("n1",))) == [
        StartGateway(GatewaySlot("n1", 0, 2), Reason.OPTIONS, replaces=GatewaySlot("n1", 0, 1))
    ]


def test_former_options_that_are_wanted_again_leave_the_gateways_that_have_them() -> None:
    back = replace(changed(revision=0), gateways_before=None)
    draining = replace(old("n1"), state=GatewayStatus.DRAINING, since_at_s=NOW_S)
    assert planned(back, seen(draining, new("n1"), old("n2"), old("n3"))) == [], "its name is taken until it has ended"
    assert planned(back, seen(new("n1"), old("n2"), old("n3"))) == [
        StartGateway(GatewaySlot("n1"), Reason.OPTIONS, replaces=GatewaySlot("n1", 0, 1))
    ]
    assert planned(back, seen(old("n1"), new("n1"), old("n2"), old("n3"))) == [StopGateway("g-n1-r1", Reason.OPTIONS)]


def test_options_have_changed_when_every_gateway_has_proven_itself_with_them() -> None:
    assert not have_all_changed(changed(), seen(new("n1"), new("n2")), NOW_S), "one is missing"
    assert not have_all_changed(changed(), seen(new("n1"), new("n2"), new("n3", NOW_S)), NOW_S)
    assert not have_all_changed(changed(), seen(new("n1"), new("n2"), new("n3"), old("n3")), NOW_S)
    draining = replace(old("n3"), state=GatewayStatus.DRAINING)
    assert have_all_changed(changed(), seen(new("n1"), new("n2"), new("n3"), draining), NOW_S)


def test_a_controller_that_has_not_seen_the_nodes_does_not_take_options_for_proven() -> None:
    assert not have_all_changed(changed(), Observed(), NOW_S)
    assert not have_all_changed(changed(), seen(new("n1"), old("n2"), nodes=("n1",)), NOW_S)


STATES = st.sampled_from(
    [GatewayStatus.STARTING, GatewayStatus.HEALTHY, GatewayStatus.UNHEALTHY, GatewayStatus.DRAINING]
)
ONE = st.builds(
    lambda node, index, revision, state, age_s: replace(
        gateway(
            state, node, unhealthy="bad" if state is GatewayStatus.UNHEALTHY else "", index=index, revision=revision
        ),
        since_at_s=NOW_S - age_s,
    ),
    st.sampled_from(NODES),
    st.integers(0, 1),
    st.integers(0, 2),
    STATES,
    st.floats(0.0, 20.0),
)
PICTURES = st.builds(
    lambda found, failing: seen(*found, failures=failing),
    st.lists(ONE, unique_by=lambda each: each.slot, max_size=12),
    st.dictionaries(st.builds(GatewaySlot, st.sampled_from(NODES), st.integers(0, 1), st.integers(1, 2)), st.just(1)),
)


@given(PICTURES, st.integers(0, 2), st.integers(1, 2), st.integers(1, 2))
def test_no_place_loses_its_last_gateway_and_no_two_nodes_change_at_once(
    view: Observed, revision: int, processes: int, processes_before: int
) -> None:
    wanted = changed(revision, processes=processes, processes_before=processes_before)
    actions = planned(wanted, view)
    assert actions == planned(wanted, view)
    updates = [each for each in actions if isinstance(each, StartGateway) and each.replaces]
    assert len({each.slot.node_id for each in updates}) <= 1
    starts = [each.slot for each in actions if isinstance(each, StartGateway)]
    assert not set(starts) & {each.slot for each in view.gateways}
    stopped = {each.gateway_id for each in actions if isinstance(each, StopGateway)}
    for one in view.gateways:
        if one.gateway_id in stopped and one.slot.index < processes:
            successors = [each for each in view.gateways if each.slot == replace(one.slot, revision=revision)]
            assert [(each.state, each.gateway_id in stopped) for each in successors] == [(GatewayStatus.HEALTHY, False)]
