"""3,000 schedules of random faults, and what must hold in each of them."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.sim import gale, storm
from tests.sim.season import first_fault, pool

STORMS, AFTERMATHS, GALES, CROWDS, HOURS = 2_304, 600, 92, 16, 4
CHUNK = 288


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    with pool() as workers:
        yield workers


@pytest.mark.parametrize("first", range(0, STORMS, CHUNK))
def test_the_mesh_weathers_every_storm(workers: ProcessPoolExecutor, first: int) -> None:
    """It keeps what is available, never has more replicas than surge allows, comes to rest and leaves nothing."""
    fault = first_fault(workers, "storm", range(first, first + CHUNK))
    assert not fault, fault


def test_a_version_that_ever_ran_serves_again_after_a_storm_without_another_deploy(
    workers: ProcessPoolExecutor,
) -> None:
    fault = first_fault(workers, "aftermath", range(AFTERMATHS))
    assert not fault, fault


@pytest.mark.parametrize("first", range(0, GALES, GALES // 4))
def test_five_applications_stand_every_gale_without_another_deploy(workers: ProcessPoolExecutor, first: int) -> None:
    """A dependency away, hosts that vanish, a slow store, two controllers, drivers and processes that come and go."""
    fault = first_fault(workers, "gale", range(first, first + GALES // 4))
    assert not fault, fault


def test_operators_who_do_everything_at_once_take_nothing_away(workers: ProcessPoolExecutor) -> None:
    """Files, canaries, pauses, drains, scaling, restores and other gateways, while controllers die."""
    fault = first_fault(workers, "crowd", range(CROWDS))
    assert not fault, fault


def test_an_hour_of_gales_leaves_nothing_behind(workers: ProcessPoolExecutor) -> None:
    fault = first_fault(workers, "hour", range(HOURS))
    assert not fault, fault


def test_a_seed_replays_exactly(workers: ProcessPoolExecutor) -> None:
    """In another process, where Python's hashes are others."""
    for history, count in ((storm.history, 20), (gale.history, 4)):
        for seed, there in zip(range(count), workers.map(history, range(count)), strict=True):
            assert len(there) > 20
            assert there == history(seed), f"seed {seed}"
