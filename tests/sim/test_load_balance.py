"""Load balance in simulation: how close the mesh's choice comes to a perfect one, and that the docs tell it truly."""

from pathlib import Path

import pytest

from tests.sim.load_balance import POLICIES, Case, simulate, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "load-balancing.md"


@pytest.mark.parametrize(
    "case",
    [Case(calls=60_000), Case(callers=10, replicas=20, calls=60_000), Case(callers=1, replicas=50, calls=60_000)],
)
def test_the_mesh_is_far_better_than_two_choices_alone(case: Case) -> None:
    results = {name: simulate(case, policy) for name, policy in POLICIES.items()}
    mesh, two, perfect = results["the mesh"], results["two choices"], results["perfect"]
    assert mesh.queue_p99 * 2 <= two.queue_p99
    assert mesh.latency_p99_s * 1.5 <= two.latency_p99_s
    assert mesh.latency_p99_s <= 3 * perfect.latency_p99_s


def test_a_seed_replays_exactly() -> None:
    case = Case(callers=5, replicas=20, calls=5_000, seed=7)
    assert simulate(case, POLICIES["the mesh"]) == simulate(case, POLICIES["the mesh"])


def test_the_document_has_the_figures_of_this_code() -> None:
    """One case stands for the table: `python -m tests.sim.load_balance` prints all of it."""
    for line in table([Case(callers=10, replicas=10)]).splitlines():
        assert line in DOCUMENT.read_text()
