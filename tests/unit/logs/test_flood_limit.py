"""mesh.logs.flood_limit: floods of one kind of event are cut and counted."""

from mesh.logs.flood_limit import FloodLimit


def test_the_first_events_of_a_kind_pass_and_the_others_are_counted() -> None:
    limit = FloodLimit(2, 10.0)
    assert limit.begin(0.0) == 0
    assert [limit.admit("a") for _ in range(4)] == [1, 2, 0, 0]
    assert limit.admit("b") == 1
    assert limit.begin(9.9) == 0
    assert limit.begin(10.0) == 2
    assert limit.admit("a") == 1


def test_kinds_without_number_are_limited_too() -> None:
    limit = FloodLimit(1, 10.0)
    limit.begin(0.0)
    assert sum(limit.admit(kind) for kind in range(1000)) == 100
    assert limit.begin(10.0) == 900
