"""How long links let batches grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.link.gathering import Patience, for_gateway_calls, for_handle_calls, rule_for


@pytest.mark.parametrize("rule", [for_handle_calls, for_gateway_calls])
def test_a_call_alone_never_waits(rule):
    assert rule(1, 1, 1) is Patience.NONE
    assert rule(1, 0, 0) is Patience.NONE


@given(st.integers(1, 1_000), st.integers(0, 1_000))
def test_a_burst_of_handle_calls_leaves_at_once(waiting: int, last_batch: int):
    assert for_handle_calls(waiting, last_batch, waiting) is Patience.NONE


def test_sparse_frames_of_many_handle_calls_are_held_back():
    assert for_handle_calls(1, 20, 64) is Patience.HOLD
    assert for_handle_calls(8, 20, 64) is Patience.NONE
    assert for_handle_calls(1, 4, 16) is Patience.TURNS


def test_a_gateway_waits_once_messages_carry_several_frames():
    assert for_gateway_calls(1, 3, 100) is Patience.HOLD
    assert for_gateway_calls(1, 2, 100) is Patience.TURNS
    assert for_gateway_calls(3, 3, 100) is Patience.NONE


def test_links_follow_their_hello():
    assert rule_for(gathers=True) is for_gateway_calls
    assert rule_for(gathers=False) is for_handle_calls
