"""Limits on the bytes of models, aliases, and models that are loaded when a replica starts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

import mesh
from mesh.multiplex.model_cache import ModelCache
from mesh.multiplex.model_limits import ModelLimits
from mesh.multiplex.model_stats import ModelStats
from mesh.multiplex.multiplex_decorator import ModelRegistry, multiplexed
from mesh.multiplex.preloading import copies_min_of, preload_models
from mesh.wire import telemetry

pytestmark = pytest.mark.anyio

SIZES = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 9}


class Zoo:
    """Loads names, and logs it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def size_of(self, model_id: str) -> int:
        return SIZES[model_id]

    @multiplexed(max_bytes_per_replica=5, model_size_fn=size_of)
    async def load(self, model_id: str) -> str:
        self.log.append(model_id)
        return model_id.upper()


# ---- The rule --------------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 6), max_size=8),
    new=st.integers(0, 8),
    models_max=st.none() | st.integers(1, 5),
    bytes_max=st.none() | st.integers(1, 12),
)
def test_victims_are_the_oldest_and_no_more_than_needed(
    sizes: list[int], new: int, models_max: int | None, bytes_max: int | None
) -> None:
    limits = ModelLimits(models_max, bytes_max)
    before = {str(number): size for number, size in enumerate(sizes)}
    left, victims = dict(before), []
    while (victim := limits.next_victim(left, new)) is not None:
        victims.append(victim)
        del left[victim]
    assert victims == list(before)[: len(victims)]
    assert not left or limits.has_room(left, new)
    if victims:
        assert not limits.has_room(left | {victims[-1]: before[victims[-1]]}, new)
    if not limits.refusal(new):
        assert limits.has_room(left, new)


# ---- Bytes -----------------------------------------------------------------------------------------------------------


async def test_the_oldest_models_go_until_the_new_one_fits() -> None:
    zoo = Zoo()
    for model_id in ("a", "b", "a", "d"):  # b goes: a was used after it
        await zoo.load(model_id)
    assert await zoo.load("a") == "A"
    assert zoo.log == ["a", "b", "d"]
    await zoo.load("b")
    assert zoo.log == ["a", "b", "d", "b"]


async def test_a_model_that_can_never_fit_is_refused_and_nothing_is_unloaded() -> None:
    zoo = Zoo()
    await zoo.load("a")
    with pytest.raises(RuntimeError, match="'e' cannot be loaded: it has 9 bytes, more than max_bytes_per_replica=5"):
        await zoo.load("e")
    await zoo.load("a")
    assert zoo.log == ["a"]


@pytest.mark.parametrize(("size", "error"), [("7", TypeError), (True, TypeError), (1.5, TypeError), (-1, ValueError)])
async def test_a_size_is_a_number_of_bytes(size: Any, error: type[Exception]) -> None:
    @multiplexed(max_bytes_per_replica=5, model_size_fn=lambda model_id: size)
    async def load(model_id: str) -> str:
        return model_id

    with pytest.raises(error, match="model_size_fn"):
        await load("a")


async def test_a_size_function_that_fails_fails_the_load_and_the_next_one_asks_again() -> None:
    answers = [OSError("no disk"), 3]

    def size_of(model_id: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @multiplexed(max_bytes_per_replica=5, model_size_fn=size_of)
    async def load(model_id: str) -> str:
        return model_id

    with pytest.raises(OSError, match="no disk"):
        await load("a")
    assert await load("a") == "a"


async def test_the_bytes_of_models_are_a_metric() -> None:
    @multiplexed(max_bytes_per_replica=5, model_size_fn=lambda model_id: SIZES[model_id])
    async def weighed(model_id: str) -> str:
        return model_id

    await weighed("b")
    await weighed("c")
    [bytes_now] = [
        sample.value
        for family, samples in telemetry.collect()
        if family.name == "mesh_multiplexed_model_bytes"
        for sample in samples
        if "weighed" in sample.label_values
    ]
    assert bytes_now == 5


@given(
    requests=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6)), min_size=1, max_size=20),
    bytes_max=st.integers(4, 8),
)
def test_never_more_bytes_than_allowed_and_everyone_gets_its_own(
    requests: list[tuple[str, int]], bytes_max: int
) -> None:
    """Random concurrent requests."""
    in_memory: set[str] = set()
    peak = 0

    class Weighed:
        def __init__(self, model_id: str) -> None:
            self.model_id = model_id

        async def __del__(self) -> None:
            await asyncio.sleep(0)
            in_memory.remove(self.model_id)

    async def load(model_id: str) -> Weighed:
        nonlocal peak
        in_memory.add(model_id)
        peak = max(peak, sum(SIZES[each] for each in in_memory))
        await asyncio.sleep(0)
        return Weighed(model_id)

    async def size_of(model_id: str) -> int:
        await asyncio.sleep(0)
        return SIZES[model_id]

    async def ask(cache: ModelCache, model_id: str, rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)
        assert (await cache.get(model_id)).model_id == model_id

    async def run() -> None:
        limits = ModelLimits(None, bytes_max)
        cache = ModelCache(load, limits, ModelStats("load", lambda: 0, lambda: 0), lambda: None, size_of=size_of)
        await asyncio.gather(*(ask(cache, *request) for request in requests))
        assert cache.resident_bytes == sum(SIZES[each] for each in cache.resident_ids) <= bytes_max
        await cache.unload_all()
        assert cache.resident_bytes == 0

    asyncio.run(run())
    assert peak <= bytes_max
    assert not in_memory


# ---- Options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_bytes_per_replica": 5}, ValueError, "come together"),
        ({"model_size_fn": len}, ValueError, "come together"),
        ({"max_bytes_per_replica": 0, "model_size_fn": len}, ValueError, "positive"),
        ({"max_bytes_per_replica": 1.5, "model_size_fn": len}, TypeError, "integer"),
        ({"max_bytes_per_replica": 5, "model_size_fn": 7}, TypeError, "model_size_fn"),
        ({"max_bytes_per_replica": 5, "model_size_fn": lambda: 1}, TypeError, "one parameter"),
        ({"max_bytes_per_replica": 5, "model_size_fn": lambda owner, model_id: 1}, TypeError, "plain function"),
        ({"min_copies": 0}, ValueError, "min_copies"),
        ({"min_copies": "2"}, TypeError, "min_copies"),
        ({"preload": "a"}, TypeError, "list of model ids"),
        ({"preload": ["a", 7]}, TypeError, "which are strings, got 7 in it"),
        ({"preload": [""]}, ValueError, "empty"),
        ({"preload": list("abcd")}, ValueError, "preload names 4 models"),
        ({"aliases": ["a"]}, TypeError, "mapping"),
        ({"aliases": {"a": 7}}, TypeError, "strings to strings"),
        ({"aliases": {"": "a"}}, ValueError, "empty"),
        ({"aliases": {"a": "b", "b": "c"}}, ValueError, "is an alias itself"),
        ({"aliases": {"a": "a"}}, ValueError, "is an alias itself"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    async def load(model_id: str) -> str:
        return model_id

    with pytest.raises(error, match=text):
        multiplexed(**options)(load)


# ---- Aliases ---------------------------------------------------------------------------------------------------------


async def test_an_alias_and_its_model_are_one_model() -> None:
    loads: list[str] = []

    @multiplexed(aliases={"model:stable": "model:7"})
    async def load(model_id: str) -> str:
        loads.append(model_id)
        return model_id

    assert [await load(name) for name in ("model:stable", "model:7", "model:stable")] == ["model:7"] * 3
    assert loads == ["model:7"]


async def test_an_alias_that_changes_means_the_other_model_from_the_next_request_on() -> None:
    @multiplexed(aliases={"stable": "7"})
    async def load(model_id: str) -> str:
        return model_id

    assert await load("stable") == "7"
    load.set_aliases({"stable": "8", "canary": "9"})
    assert [await load(name) for name in ("stable", "canary", "7")] == ["8", "9", "7"]
    with pytest.raises(ValueError, match="is an alias itself"):
        load.set_aliases({"a": "b", "b": "c"})
    assert await load("stable") == "8"


async def test_routers_hear_of_models_under_all_their_names(registry: ModelRegistry) -> None:
    """So a request for an alias goes where its model is (items 122, 176)."""
    announced: list[set[str]] = []
    registry.on_change(lambda ids: announced.append(set(ids)))

    @multiplexed(aliases={"king": "lion", "queen": "lioness"})
    async def load(model_id: str) -> str:
        return model_id

    await load("lion")
    assert announced[-1] == {"lion", "king"}
    load.set_aliases({"newest": "lion"})
    await asyncio.sleep(0)
    assert announced[-1] == {"lion", "newest"}


async def test_aliases_travel_with_a_class() -> None:
    class Local:
        @multiplexed(aliases={"stable": "7"})
        async def load(self, model_id: str) -> str:
            return model_id

    Local.load.set_aliases({"stable": "8"})
    copy = cloudpickle.loads(cloudpickle.dumps(Local()))
    assert await copy.load("stable") == "8"


# ---- Preloading ------------------------------------------------------------------------------------------------------


class Ready:
    def __init__(self) -> None:
        self.log: list[str] = []

    @multiplexed(preload=["a", "stable"], aliases={"stable": "7"})
    async def load(self, model_id: str) -> str:
        self.log.append(model_id)
        return model_id

    async def loaded(self) -> list[str]:
        await self.load("a")
        return self.log


class ReadyToo(Ready):
    @multiplexed(preload=["b"])
    async def load_more(self, model_id: str) -> str:
        self.log.append(model_id)
        return model_id


async def test_models_are_loaded_in_their_order_also_those_of_inherited_loaders() -> None:
    ready = ReadyToo()
    await preload_models(ready)
    assert sorted(ready.log) == ["7", "a", "b"]
    assert ready.log.index("a") < ready.log.index("7")


def test_a_replica_wants_as_many_copies_as_the_most_demanding_of_its_loaders() -> None:
    class Copied(Ready):
        @multiplexed(min_copies=3)
        async def load_copies(self, model_id: str) -> str:
            return model_id

    assert [copies_min_of(target) for target in (Copied(), Ready(), object())] == [3, 1, 1]


async def test_objects_without_loaders_preload_nothing(registry: ModelRegistry) -> None:
    for target in (object(), lambda: None, Zoo()):
        await preload_models(target)
    assert registry.model_ids() == []


def test_a_deployment_serves_with_its_models_loaded(mesh_app: Any) -> None:
    handle = mesh_app(mesh.deployment(Ready).bind()).handle
    assert handle.loaded.remote().result(timeout_s=10) == ["a", "7"]


def test_a_model_that_cannot_be_preloaded_fails_the_start(mesh_app: Any) -> None:
    class Broken:
        @multiplexed(preload=["a"])
        async def load(self, model_id: str) -> str:
            raise LookupError(f"no model {model_id}")

        def __call__(self) -> None: ...

    with pytest.raises(Exception, match="no model a"):
        mesh_app(mesh.deployment(Broken).bind())


def test_aliases_follow_the_user_config(mesh_app: Any) -> None:
    """Another configuration needs no new replica."""

    class Shop:
        def reconfigure(self, config: dict[str, Any]) -> None:
            self.load.set_aliases(config["aliases"])  # type: ignore[attr-defined]

        @multiplexed()
        async def load(self, model_id: str) -> str:
            return model_id

        async def __call__(self) -> str:
            return await self.load(mesh.get_multiplexed_model_id())

    shop = mesh.deployment(Shop, user_config={"aliases": {"stable": "7"}})
    handle = mesh_app(shop.bind()).handle
    assert handle.options(multiplexed_model_id="stable").remote().result(timeout_s=10) == "7"
