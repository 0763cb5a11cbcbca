"""mesh.controller.nodes.node_names: a node by its id, the beginning of it, or its address."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.nodes.node_names import PREFIX_MIN_CHARS, find_node
from mesh.controller.plan.cluster_picture import Node

HEAD = Node(node_id="3f2a91bc" * 7, address="10.0.0.3", is_head=True)
OTHER = Node(node_id="3f2a0000" * 7, address="10.0.0.4")
NODES = (HEAD, OTHER)


@pytest.mark.parametrize("name", [HEAD.node_id, "3f2a9", "3F2A91BC", " 10.0.0.3 "])
def test_a_node_has_several_names(name: str) -> None:
    assert find_node(NODES, name) is HEAD


@pytest.mark.parametrize(
    ("name", "code"), [("3f2a", "FAILED_PRECONDITION"), ("10.0.0", "NOT_FOUND"), ("", "NOT_FOUND")]
)
def test_what_names_none_or_several_is_refused_with_a_list(name: str, code: str) -> None:
    with pytest.raises(InvalidChangeError) as refusal:
        find_node(NODES, name)
    assert refusal.value.code == grpc.StatusCode[code]
    assert "3f2a91bc (10.0.0.3), the head; 3f2a0000 (10.0.0.4)" in str(refusal.value)


def test_nodes_of_one_machine_differ_by_their_ids_only() -> None:
    twins = [Node(node_id="a1", address="10.0.0.4"), Node(node_id="a2", address="10.0.0.4")]
    with pytest.raises(InvalidChangeError, match="may be any of 2 nodes"):
        find_node(twins, "10.0.0.4")
    assert find_node(twins, "a2") is twins[1]


def test_the_list_of_a_large_cluster_is_short() -> None:
    nodes = [Node(node_id=f"{number:056x}") for number in range(1000)]
    with pytest.raises(InvalidChangeError, match="and 950 more"):
        find_node(nodes, "x")


def test_a_few_characters_name_no_node() -> None:
    """Also if there is only one that they could be: `mesh drain 3` for `mesh drain 3f2a91bc` empties a node."""
    for name in ("3", "3f2"):
        with pytest.raises(InvalidChangeError, match=r"at least 4 characters .* 3f2a91bc") as refusal:
            find_node([HEAD], name)
        assert refusal.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert find_node([Node(node_id="n1"), HEAD], "n1").node_id == "n1", "a whole id may be as short as it is"


def test_a_name_of_any_length_makes_a_short_message() -> None:
    with pytest.raises(InvalidChangeError) as refusal:
        find_node(NODES, "3f2a" * 100_000)
    assert len(str(refusal.value)) < 300


@given(st.sets(st.text("01", min_size=1, max_size=6), max_size=8), st.text("01", max_size=7))
def test_a_name_is_never_that_of_another_node(ids: set[str], name: str) -> None:
    nodes = [Node(node_id=each) for each in sorted(ids)]
    begin = [each for each in ids if len(name) >= PREFIX_MIN_CHARS and each.startswith(name)]
    try:
        found = find_node(nodes, name)
    except InvalidChangeError:
        assert name not in ids
        assert len(begin) != 1
    else:
        assert found.node_id == name or begin == [found.node_id]
