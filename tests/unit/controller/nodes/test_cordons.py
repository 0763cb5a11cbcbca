"""mesh.controller.nodes.cordons: what is stored of a cordon, and what the planners see of it."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.desired_state import read_desired
from mesh.controller.nodes.cordons import cordoned, uncordoned, with_cordons
from mesh.controller.plan.cluster_picture import Node
from mesh.v1 import control_pb2

EMPTY = control_pb2.DesiredState()
CORDON = control_pb2.Cordon(node_id="n1", author="ada@host")
DRAIN = control_pb2.Cordon(node_id="n1", is_draining=True, replicas=3)


def marked(node: Node, state: control_pb2.DesiredState) -> Node:
    (seen,) = with_cordons([node], read_desired(state).cordons)
    return seen


def test_a_cordoned_node_stays_and_takes_nothing() -> None:
    node = marked(Node(node_id="n1"), cordoned(EMPTY, CORDON))
    assert (node.is_cordoned, node.is_emptied, node.ends_at_s, node.takes_replicas) == (True, False, None, False)


def test_a_drained_node_ends_at_no_known_time() -> None:
    node = marked(Node(node_id="n1"), cordoned(EMPTY, DRAIN))
    assert (node.is_emptied, node.ends_at_s, node.takes_replicas) == (True, math.inf, False)


def test_a_node_that_ray_drains_too_has_to_hurry() -> None:
    node = marked(Node(node_id="n1", ends_at_s=7.0), cordoned(EMPTY, DRAIN))
    assert (node.is_cordoned, node.is_emptied, node.ends_at_s) == (True, False, 7.0)


def test_a_cordon_does_not_end_a_drain() -> None:
    state = cordoned(cordoned(EMPTY, CORDON), DRAIN)
    assert list(state.cordons) == [DRAIN]
    assert list(cordoned(state, CORDON).cordons) == [DRAIN]
    assert list(cordoned(state, control_pb2.Cordon(node_id="n1", is_draining=True)).cordons) == [DRAIN]


def test_other_nodes_are_left_alone() -> None:
    state = cordoned(cordoned(EMPTY, CORDON), control_pb2.Cordon(node_id="n2"))
    assert [each.node_id for each in uncordoned(state, ("n1",)).cordons] == ["n2"]
    assert marked(Node(node_id="n3"), state) == Node(node_id="n3")


def test_an_author_takes_no_more_room_than_a_name() -> None:
    assert len(cordoned(EMPTY, control_pb2.Cordon(node_id="n1", author="x" * 10_000)).cordons[0].author) == 100


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["cordon", "drain", "uncordon"])), max_size=12))
def test_a_change_never_touches_the_state_that_it_is_made_of(changes: list[tuple[str, str]]) -> None:
    """There is one cordon of a node at most, each change is a version of its own, and repeating it changes nothing."""
    state = EMPTY
    for node_id, what in changes:
        before, kept = state.SerializeToString(deterministic=True), state
        for _ in range(2):
            if what == "uncordon":
                state = uncordoned(state, (node_id,))
            else:
                state = cordoned(state, control_pb2.Cordon(node_id=node_id, is_draining=what == "drain"))
            assert any(each.node_id == node_id for each in state.cordons) == (what != "uncordon")
        assert kept.SerializeToString(deterministic=True) == before
        assert state.version == kept.version + 2
        assert len({each.node_id for each in state.cordons}) == len(state.cordons)
