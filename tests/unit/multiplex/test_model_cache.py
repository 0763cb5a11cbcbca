"""Models in memory: one load for all that wait, the least recently used one goes first (items 118–122)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.multiplex.model_cache import ModelCache
from mesh.multiplex.model_limits import ModelLimits
from mesh.multiplex.model_stats import ModelStats
from mesh.multiplex.multiplex_decorator import ModelRegistry
from tests.unit.multiplex.zoo import Model, Zoo

pytestmark = pytest.mark.anyio


async def test_the_least_recently_used_model_goes_before_the_next_loads() -> None:
    """A hit makes a model the most recent one (item 119)."""
    zoo = Zoo()
    first = await zoo.load("a")
    await zoo.load("b")
    assert await zoo.load("a") is first
    await zoo.load("c")
    assert zoo.log == ["load a", "load b", "unload b", "load c"]


async def test_requests_for_one_model_share_one_load() -> None:
    """All of them get the same object (item 119)."""
    zoo = Zoo()
    zoo.gate.clear()
    waiting = [asyncio.create_task(zoo.load("a")) for _ in range(20)]
    await asyncio.sleep(0)
    zoo.gate.set()
    models = await asyncio.gather(*waiting)
    assert all(model is models[0] for model in models)
    assert zoo.log == ["load a"]


async def test_a_cancelled_waiter_takes_nothing_from_the_others() -> None:
    """The load goes on for those who stay (item 119)."""
    zoo = Zoo()
    zoo.gate.clear()
    first, second = (asyncio.create_task(zoo.load("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    zoo.gate.set()
    assert (await second).model_id == "a"
    assert first.cancelled()


async def test_a_load_without_waiters_finishes_and_stays() -> None:
    """The next request finds the model (item 119)."""
    zoo = Zoo()
    zoo.gate.clear()
    only = asyncio.create_task(zoo.load("a"))
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    zoo.gate.set()
    await zoo.load("a")
    assert zoo.log == ["load a"]


async def test_a_failed_load_reaches_its_waiters_and_caches_nothing(registry: ModelRegistry) -> None:
    """The next request loads again (item 121)."""
    zoo = Zoo()
    zoo.broken = {"a"}
    results = await asyncio.gather(zoo.load("a"), zoo.load("a"), zoo.load("b"), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError, Model]
    assert sorted(registry.model_ids()) == ["b"]
    zoo.broken = set()
    assert (await zoo.load("a")).model_id == "a"


async def test_ids_are_announced_while_they_load_and_when_they_go(registry: ModelRegistry) -> None:
    """Callers hear of each change at once (item 122)."""
    announced: list[list[str]] = []
    zoo = Zoo()
    await zoo.load("a")
    await zoo.load("b")
    registry.on_change(announced.append)
    zoo.gate.clear()
    loading = asyncio.create_task(zoo.load("c"))
    await until(lambda: len(announced) == 2)
    assert announced == [["a", "b", "c"], ["b", "c"]]
    assert not loading.done()
    zoo.gate.set()
    await loading
    assert announced[2:] == []
    assert registry.model_ids() == ["b", "c"]


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from("abcde"),
            st.integers(0, 8),  # rounds of the loop before it asks
            st.sampled_from(["stays", "stays", "stays", "leaves"]),
        ),
        min_size=1,
        max_size=25,
    ),
    limit=st.integers(1, 3),
    broken=st.sets(st.sampled_from("abcde"), max_size=2),
)
def test_never_more_models_than_allowed_and_everyone_gets_its_own(
    requests: list[tuple[str, int, str]], limit: int, broken: set[str]
) -> None:
    """Random concurrent requests, failures and cancels (items 119–121)."""
    in_memory: set[str] = set()
    peak = 0

    class Counted:
        def __init__(self, model_id: str) -> None:
            self.model_id = model_id

        async def __del__(self) -> None:
            await asyncio.sleep(0)
            in_memory.remove(self.model_id)

    async def load(model_id: str) -> Counted:
        nonlocal peak
        assert model_id not in in_memory
        in_memory.add(model_id)
        peak = max(peak, len(in_memory))
        await asyncio.sleep(0)
        if model_id in broken:
            in_memory.remove(model_id)
            raise ZeroDivisionError
        return Counted(model_id)

    async def main() -> None:
        cache = ModelCache(load, ModelLimits(limit), ModelStats("load", lambda: 0, lambda: 0), lambda: None)

        async def ask(model_id: str, rounds: int, behaviour: str) -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)
            asking = asyncio.create_task(cache.get(model_id))
            if behaviour == "leaves":
                await asyncio.sleep(0)
                asking.cancel()
            outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
            match outcome:
                case Counted():
                    assert outcome.model_id == model_id
                case ZeroDivisionError():
                    assert model_id in broken
                case _:
                    assert isinstance(outcome, asyncio.CancelledError)
                    assert behaviour == "leaves"

        await asyncio.gather(*(ask(*request) for request in requests))
        await until(lambda: sorted(cache.model_ids) == sorted(cache.resident_ids))
        assert set(cache.resident_ids) == in_memory
        assert await cache.unload_all() == []
        assert in_memory == set()
        assert peak <= limit

    asyncio.run(main())


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # any step of the cache may be the one
            await asyncio.sleep(0)
