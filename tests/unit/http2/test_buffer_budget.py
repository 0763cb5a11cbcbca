"""What connections may buffer together, whatever they ask for and give back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.http2.limits import BufferBudget, BufferShare

MAX_BYTES = 1_000
SIZES = st.integers(1, MAX_BYTES)
STEPS = st.lists(st.tuples(st.integers(0, 3), SIZES, st.booleans()), max_size=60)


@given(STEPS)
def test_the_budget_is_never_exceeded_and_every_connection_leaves_as_much_as_it_takes(
    steps: list[tuple[int, int, bool]],
) -> None:
    budget = BufferBudget(MAX_BYTES)
    shares = [BufferShare(budget) for _ in range(4)]
    for number, size, takes in steps:
        share = shares[number]
        if takes and share.has_room(size):
            share.add(size)
            assert share.used_bytes <= MAX_BYTES - budget.used_bytes
        elif not takes:
            share.add(-min(size, share.used_bytes))
        assert budget.used_bytes == sum(each.used_bytes for each in shares) <= MAX_BYTES
    for share in shares:
        share.add(-share.used_bytes)
    assert shares[0].has_room(MAX_BYTES // 2)


@given(st.integers(0, 8), SIZES)
def test_greedy_connections_leave_room_for_the_next(greedy: int, max_bytes: int) -> None:
    budget = BufferBudget(max_bytes)
    for _ in range(greedy):
        share = BufferShare(budget)
        while share.has_room(1):
            share.add(1)
    assert max_bytes - budget.used_bytes >= max_bytes >> greedy


def test_what_was_counted_without_room_counts() -> None:
    budget = BufferBudget(MAX_BYTES)
    share = BufferShare(budget)
    share.add(MAX_BYTES * 2)
    assert not BufferShare(budget).has_room(1)
    share.add(-MAX_BYTES * 2)
    assert BufferShare(budget).has_room(MAX_BYTES // 2)
    assert not BufferShare(budget).has_room(MAX_BYTES // 2 + 1)


def test_without_a_limit_there_is_always_room() -> None:
    share = BufferShare(BufferBudget())
    share.add(2**62)
    assert share.has_room(2**62)
