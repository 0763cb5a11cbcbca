"""mesh.controller.plan.backoff: pauses double up to their limit, whatever the number of failures."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.plan.backoff import Backoff


def test_pauses_double_up_to_the_limit() -> None:
    backoff = Backoff(first_s=0.5, max_s=10.0)
    assert [backoff.pause_s(failures) for failures in (0, 1, 2, 3, 5, 6, 60)] == [0.0, 0.5, 1.0, 2.0, 8.0, 10.0, 10.0]


@given(st.integers(-5, 10_000))
def test_a_pause_never_shrinks_nor_exceeds_the_limit(failures: int) -> None:
    backoff = Backoff(first_s=0.25, max_s=60.0)
    assert 0.0 <= backoff.pause_s(failures) <= backoff.pause_s(failures + 1) <= 60.0
