"""Request contexts and method counts: what travels, what children get, and what is bounded."""

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.v1 import common_pb2
from mesh.wire.identity import Identity
from mesh.wire.request_context import RequestContext, new_request_id
from mesh.wire.telemetry import METHODS_MAX, OTHER, CountsByMethod

ALICE = Identity("alice", {"role": "admin"})
text = st.text(max_size=10)


identities = st.none() | st.builds(Identity, text.filter(bool), st.dictionaries(text, text, max_size=3))


@given(st.builds(RequestContext, text, text, text, text, text.filter(bool), text, identities, text))
def test_a_context_arrives_as_it_was_sent(context: RequestContext) -> None:
    message = common_pb2.RequestContext()
    context.write(message)
    assert RequestContext.read(message) == context


def test_request_ids_are_random_uuids() -> None:
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {uuid.UUID(each).version for each in ids} == {4}


def test_request_ids_differ_in_their_first_digits() -> None:
    """People tell requests apart by them."""
    assert len({new_request_id()[:8] for _ in range(1000)}) == 1000


def test_children_inherit_all_but_the_model() -> None:
    request = RequestContext("id", "/route", "app", "model", "trace", "state", ALICE, "acme")
    child = RequestContext("id", "/route", "app", "theirs", "trace", "state", ALICE, "acme")
    assert request.for_child("theirs") == child
    assert request.for_child("theirs", "globex") == replace(child, tenant="globex")
    assert request.for_child("theirs", route="/items/{id}") == replace(child, route="/items/{id}")
    assert request.for_child("").multiplexed_model_id == ""


def test_invented_method_names_share_one_count() -> None:
    counts = CountsByMethod()
    for number in range(METHODS_MAX * 3):
        counts[f"method-{number}"].count(0, 0.1)
    assert len(counts) == METHODS_MAX + 1
    assert counts[OTHER].by_code == {0: METHODS_MAX * 2}


def test_an_identity_without_a_name_is_none() -> None:
    for name in ("", None, 3):
        with pytest.raises(TypeError, match="must be a string that is not empty"):
            Identity(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a dict of strings"):
        Identity("alice", {"age": 3})  # type: ignore[dict-item]
