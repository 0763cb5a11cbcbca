"""mesh/routing/choice/locality.py: the latest load reports are used, once, and never against a better candidate."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.choice.locality import Locality, pick_nearest


@dataclass(eq=False)
class Endpoint:
    load: int
    limit: int = 4
    weight: float = 1.0

    @property
    def is_free(self) -> bool:
        return self.load < self.limit

    @property
    def model_count(self) -> int:
        return 0


endpoints = st.lists(st.builds(Endpoint, st.integers(0, 5), st.integers(1, 4)), max_size=12)
seeds = st.integers(0, 2**32)


def heard_of(candidates: list[Endpoint], positions: list[int]) -> Locality[Endpoint]:
    locality = Locality(candidates)
    for position in positions:
        if candidates:
            locality.record_load(candidates[position % len(candidates)])
    return locality


@given(endpoints, st.lists(st.integers(0, 11), max_size=20), seeds)
def test_a_free_candidate_is_picked_if_there_is_one(candidates: list[Endpoint], news: list[int], seed: int) -> None:
    locality = heard_of(candidates, news)
    for _ in range(20):
        found = locality.pick(random.Random(seed).random)
        assert (found is not None) == any(endpoint.is_free for endpoint in candidates)
        assert found is None or (found.is_free and found in candidates)


@given(st.lists(endpoints, max_size=3), seeds)
def test_the_nearest_free_candidate_wins_unless_another_is_clearly_less_loaded(
    groups: list[list[Endpoint]], seed: int
) -> None:
    found = pick_nearest([Locality(group) for group in groups], random.Random(seed).random)
    free_groups = [group for group in groups if any(endpoint.is_free for endpoint in group)]
    assert (found is not None) == bool(free_groups)
    if found is not None and found not in free_groups[0]:
        assert any(near.load > 2 * found.load + 2 for near in free_groups[0])
        assert found.is_free


@pytest.mark.parametrize(("near", "far", "is_near"), [(2, 0, True), (3, 0, False), (6, 2, True), (7, 2, False)])
def test_calls_leave_a_node_whose_replicas_are_clearly_busier(near: int, far: int, is_near: bool) -> None:
    here, elsewhere = Endpoint(near, limit=100), Endpoint(far, limit=100)
    found = pick_nearest([Locality([here]), Locality([elsewhere])], random.random)
    assert found is (here if is_near else elsewhere)


@given(seeds)
def test_one_that_has_just_told_that_it_is_idle_comes_before_old_hearsay(seed: int) -> None:
    """Results carry the load of their replica (item 159)."""
    candidates = [Endpoint(1) for _ in range(100)]
    locality = Locality(candidates)
    idle = candidates[7]
    idle.load = 0
    locality.record_load(idle)
    assert locality.pick(random.Random(seed).random) is idle


@given(seeds)
def test_news_is_used_once(seed: int) -> None:
    candidates = [Endpoint(1) for _ in range(1000)]
    locality = heard_of(candidates, [7])
    draw = random.Random(seed).random
    picked = [locality.pick(draw) for _ in range(5)]
    assert picked.count(candidates[7]) <= 2


@given(seeds)
def test_idle_replicas_share_the_calls_of_one_slow_caller(seed: int) -> None:
    candidates = [Endpoint(0) for _ in range(10)]
    locality = Locality(candidates)
    draw = random.Random(seed).random
    picked = []
    for _ in range(100):
        found = locality.pick(draw)
        assert found is not None
        picked.append(found)
        locality.record_load(found)
    assert len(set(map(id, picked))) > 5


def test_equals_that_told_their_load_take_turns() -> None:
    candidates = [Endpoint(2) for _ in range(20)]
    locality = heard_of(candidates, [3, 5, 7])
    draw = random.Random(1).random
    assert [locality.pick(draw) for _ in range(3)] == [candidates[n] for n in (3, 5, 7)]


def test_one_known_to_be_clearly_less_loaded_comes_before_news() -> None:
    busy, *rest = candidates = [Endpoint(3), *(Endpoint(0) for _ in range(9))]
    locality = Locality(candidates)
    locality.record_load(busy)
    assert locality.pick(random.Random(1).random) in rest


def test_a_new_tier_remembers_what_is_still_there() -> None:
    candidates = [Endpoint(1) for _ in range(10)]
    locality = heard_of(candidates, [3, 5])
    del candidates[3]
    locality = Locality(candidates, previous=locality)
    assert locality.pick(random.Random(1).random) is candidates[4]


def test_news_of_a_replica_that_is_elsewhere_are_of_no_interest() -> None:
    """A caller notes what it hears in every locality; only some of them have the replica."""
    near, far = Locality(Endpoint(1) for _ in range(5)), Endpoint(0)
    near.record_load(far)
    assert far not in {near.pick(random.random) for _ in range(50)}


def test_a_tier_remembers_the_latest_few_only() -> None:
    candidates = [Endpoint(3) for _ in range(12)]
    locality = heard_of(candidates, list(range(12)))
    assert list(locality._recent) == candidates[-8:]


def test_one_that_has_just_told_that_it_is_full_is_left_alone() -> None:
    full, others = Endpoint(4, limit=4), [Endpoint(3, limit=4) for _ in range(3)]
    locality = Locality([full, *others])
    for _ in range(50):
        locality.record_load(full)
        assert locality.pick(random.random) in others


def test_news_win_by_no_more_than_what_is_usual() -> None:
    heard, others = Endpoint(2, limit=9), [Endpoint(0, limit=9) for _ in range(3)]
    locality = Locality([heard, *others])
    for _ in range(200):
        locality.record_load(heard)
    heard.load = 8
    assert locality.pick(random.random) in others


@given(seeds)
def test_news_of_a_failure_attract_no_call(seed: int) -> None:
    candidates = [Endpoint(1) for _ in range(100)]
    locality = heard_of(candidates, [7])
    candidates[7].load = 0
    locality.forget(candidates[7])
    picked = [locality.pick(random.Random(seed + n).random) for n in range(5)]
    assert picked.count(candidates[7]) < 5


def test_a_replica_at_a_small_weight_gets_about_that_share_of_what_it_would_get() -> None:
    starting, *others = candidates = [Endpoint(0, weight=0.1), Endpoint(3), Endpoint(3)]
    locality = Locality(candidates)
    draw = random.Random(1).random
    picked = [locality.pick(draw) for _ in range(3000)]
    # Of two random ones of three, it is among them and the least loaded in two thirds of the cases.
    assert 0.05 < picked.count(starting) / 3000 < 0.09
    assert all(other in picked for other in others)


def test_a_replica_at_a_small_weight_gets_the_call_if_the_others_are_full() -> None:
    starting, *full = [Endpoint(0, weight=0.1), Endpoint(4), Endpoint(4)]
    locality = Locality([starting, *full])
    assert {locality.pick(random.random) for _ in range(50)} == {starting}


def test_replicas_that_all_start_share() -> None:
    candidates = [Endpoint(0, weight=0.1) for _ in range(4)]
    locality = Locality(candidates)
    assert {locality.pick(random.random) for _ in range(200)} == set(candidates)


def test_news_of_a_replica_at_a_small_weight_are_not_remembered() -> None:
    starting, *others = [Endpoint(0, weight=0.1), *(Endpoint(0) for _ in range(9))]
    locality = Locality([starting, *others])
    draw, picked = random.Random(1).random, []
    for _ in range(500):
        locality.record_load(starting)
        picked.append(locality.pick(draw))
    assert picked.count(starting) < 50
