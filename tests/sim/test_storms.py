"""2,000 schedules of random faults, and what must hold in each of them."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.sim.storm import aftermath, history, weather

SEEDS = 2_000
CHUNK = 250
AFTERMATHS = 500


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: other tests have left threads in this process.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_mesh_weathers_every_storm(workers: ProcessPoolExecutor, first: int) -> None:
    """It keeps what is available, never has more replicas than surge allows, comes to rest and leaves nothing."""
    seeds = range(first, first + CHUNK)
    for seed, complaint in zip(seeds, workers.map(weather, seeds, chunksize=10), strict=True):
        assert not complaint, f"{complaint}\nTo see it again: .venv/bin/python -m tests.sim.storm {seed}"


def test_a_version_that_ever_ran_serves_again_after_a_storm_without_another_deploy(
    workers: ProcessPoolExecutor,
) -> None:
    for seed, complaint in zip(range(AFTERMATHS), workers.map(aftermath, range(AFTERMATHS), chunksize=10), strict=True):
        assert not complaint, f"seed {seed}: {complaint}"


def test_a_seed_replays_exactly(workers: ProcessPoolExecutor) -> None:
    """In another process, where Python's hashes are others."""
    seeds = range(20)
    for seed, there in zip(seeds, workers.map(history, seeds), strict=True):
        assert len(there) > 20
        assert there == history(seed), f"seed {seed}"
