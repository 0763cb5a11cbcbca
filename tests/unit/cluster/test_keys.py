"""mesh.cluster.keys: the names of actors can be read again."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.keys import gateway_name, read_gateway_name


@given(st.text("0123456789abcdef", min_size=1), st.integers(0, 300), st.integers(0, 10**6))
def test_the_name_of_a_gateway_tells_its_node_index_and_revision(node_id: str, index: int, revision: int) -> None:
    assert read_gateway_name(gateway_name(node_id, index, revision)) == (node_id, index, revision)


def test_gateways_with_the_options_of_the_start_have_the_names_of_earlier_versions() -> None:
    """A new controller adopts those of an older one by their names."""
    assert [gateway_name("n", 0), gateway_name("n", 2)] == ["MESH_GATEWAY::n", "MESH_GATEWAY::n#2"]
