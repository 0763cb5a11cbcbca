"""The picker: never a full candidate, always a free one if there is one, and models where they are."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.choice.picker import pick, pick_for_model, pick_for_session


@dataclass(eq=False)
class Endpoint:
    load: int
    limit: int
    models: frozenset[str] = field(default_factory=frozenset)
    weight: float = 1.0
    name: str = ""

    @property
    def model_count(self) -> int:
        return len(self.models)

    @property
    def is_free(self) -> bool:
        return self.load < self.limit


models = st.frozensets(st.sampled_from("abc"), max_size=3)
endpoints = st.lists(st.builds(Endpoint, st.integers(0, 5), st.integers(1, 4), models), max_size=6)
seeds = st.integers(0, 2**32)


@given(endpoints, seeds)
def test_a_free_candidate_is_picked_if_there_is_one(candidates: list[Endpoint], seed: int) -> None:
    found = pick(candidates, random.Random(seed).random)
    assert (found is not None) == any(endpoint.is_free for endpoint in candidates)
    assert found is None or found.is_free


@given(endpoints, st.booleans(), seeds)
def test_a_model_is_picked_where_it_is(candidates: list[Endpoint], may_spill: bool, seed: int) -> None:
    holders = [endpoint for endpoint in candidates if "a" in endpoint.models]
    found = pick_for_model(holders, candidates, random.Random(seed).random, may_spill=may_spill)
    free = [endpoint for endpoint in candidates if endpoint.is_free]
    free_holders = [endpoint for endpoint in holders if endpoint.is_free]
    assert found is None or found.is_free
    if free_holders:
        assert found in free_holders
    elif holders and not may_spill:
        assert found is None
    elif free:
        assert found is not None
        assert found.model_count == min(endpoint.model_count for endpoint in free)


@given(endpoints, st.booleans(), st.integers(1, 5), seeds)
def test_copies_are_made_while_there_are_too_few_and_a_replica_without_the_model_is_free(
    candidates: list[Endpoint], may_spill: bool, copies_min: int, seed: int
) -> None:
    holders = [endpoint for endpoint in candidates if "a" in endpoint.models]
    dice = random.Random(seed)
    found = pick_for_model(holders, candidates, dice.random, may_spill=may_spill, copies_min=copies_min)
    others = [endpoint for endpoint in candidates if endpoint.is_free and endpoint not in holders]
    if 0 < len(holders) < copies_min and others:
        assert found in others
        assert found.model_count == min(endpoint.model_count for endpoint in others)
    else:
        plain = pick_for_model(holders, candidates, random.Random(seed).random, may_spill=may_spill)
        assert found is plain


def test_a_full_candidate_with_fewer_models_hides_no_free_one() -> None:
    full, free = Endpoint(1, 1), Endpoint(0, 1, frozenset("b"))
    assert pick_for_model([], [full, free], random.random, may_spill=False) is free


def test_the_less_loaded_of_two_is_picked() -> None:
    """In any order (item 157)."""
    busy, idle = Endpoint(3, 5), Endpoint(1, 5)
    assert {pick([busy, idle], random.random) for _ in range(20)} == {idle}


def test_equals_share() -> None:
    candidates = [Endpoint(0, 5) for _ in range(2)]
    dice = random.Random(1)
    picked = [pick(candidates, dice.random) for _ in range(1000)]
    assert 400 < picked.count(candidates[0]) < 600


@pytest.mark.parametrize("position", range(5))
def test_the_most_loaded_of_many_is_never_picked(position: int) -> None:
    """The two that are looked at are never one and the same."""
    candidates = [Endpoint(0, 9) for _ in range(5)]
    candidates[position].load = 5
    dice = random.Random(1)
    assert candidates[position] not in {pick(candidates, dice.random) for _ in range(1000)}


names = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, min_size=1, max_size=8)


@given(names, st.text(max_size=5), seeds)
def test_a_session_stays_where_it_is_whatever_the_order_and_load_of_replicas(
    listed: list[str], session_id: str, seed: int
) -> None:
    """The same replica for all callers, until it is full or gone; others that leave change nothing (item 206)."""
    rng = random.Random(seed)
    candidates = [Endpoint(rng.randrange(3), 3, name=name) for name in listed]
    home = pick_for_session(session_id, candidates)
    assert home is not None
    rng.shuffle(candidates)
    assert pick_for_session(session_id, candidates) is home
    fewer = [each for each in candidates if each is home or rng.random() < 0.5]
    assert pick_for_session(session_id, fewer) is home
    home.load = home.limit
    other = pick_for_session(session_id, candidates)
    assert (other is not None and other.is_free) == (len(candidates) > 1)


def test_sessions_spread_over_replicas() -> None:
    candidates = [Endpoint(0, 1, name=f"replica-{number}") for number in range(4)]
    homes = [pick_for_session(f"session {number}", candidates) for number in range(400)]
    assert all(60 < homes.count(each) < 140 for each in candidates)
