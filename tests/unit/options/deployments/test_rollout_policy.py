"""mesh.options.deployments.rollout_policy: how many replicas an update changes at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.options.deployments.rollout_policy import UpdatePace, pace_of
from mesh.v1 import control_pb2

PERCENT = st.none() | st.floats(0, 100)


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "pace"),
    [
        (None, None, 10, UpdatePace(2, 0, 2, 3)),
        (None, None, 1, UpdatePace(1, 0, 1)),
        (None, None, 6, UpdatePace(2, 0, 1, 2)),
        (None, None, 12, UpdatePace(3, 0, 2, 4)),
        (50, None, 10, UpdatePace(5, 0, 5, 3)),
        (50, None, 5, UpdatePace(3, 0, 2, 1)),
        (0, 25, 10, UpdatePace(0, 2, 2, 2)),
        (0, 20, 1, UpdatePace(1, 0, 0)),
        (100, 0, 3, UpdatePace(3, 0, 0)),
        (7, 7, 100, UpdatePace(7, 7, 7, 7)),
        (0, 100, 4, UpdatePace(0, 4, 4, 4)),
    ],
)
def test_surges_round_up_and_what_may_be_away_rounds_down(
    surge: float | None, unavailable: float | None, replicas: int, pace: UpdatePace
) -> None:
    """Also in a full cluster, where old replicas make room (item 189)."""
    options = control_pb2.DeploymentOptions(max_surge_percent=surge, max_unavailable_percent=unavailable)
    assert pace_of(options, replicas) == pace


@given(surge=PERCENT, unavailable=PERCENT, replicas=st.integers(0, 1000))
def test_an_update_can_always_go_on(surge: float | None, unavailable: float | None, replicas: int) -> None:
    pace = pace_of(
        control_pb2.DeploymentOptions(max_surge_percent=surge, max_unavailable_percent=unavailable), replicas
    )
    assert pace.surge_max + pace.unavailable_max >= 1
    assert pace.unavailable_max <= replicas


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_surge_percent": 0}, "max_unavailable_percent above 0"),
        ({"max_surge_percent": 0, "max_unavailable_percent": 0}, "max_unavailable_percent above 0"),
        ({"max_unavailable_percent": 101}, "at most 100"),
        ({"rolling_update_percentage": 20}, "max_unavailable_percent=20"),
        ({"rolling_update_percentage": 0.2, "max_unavailable_percent": 20}, "another name"),
    ],
)
def test_policies_with_which_nothing_could_go_on_are_refused(options: dict[str, float], message: str) -> None:
    """The error says what to give instead (item 95)."""
    with pytest.raises(ValueError, match=message):
        mesh.deployment(**options)(object)  # type: ignore[arg-type]


def test_the_old_name_is_a_fraction() -> None:
    """`rolling_update_percentage`, as Ray Serve calls it (item 95)."""

    @mesh.deployment(rolling_update_percentage=0.25, max_surge_percent=0)
    class Model:
        pass

    assert Model.config.max_unavailable_percent == 25
    assert Model.options(num_replicas=4).config.max_unavailable_percent == 25
