"""@mesh.multiplexed: loaders, ids, eviction and unloading (items 115–124, C9, C10)."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from mesh.context import REQUEST, Request, current_request
from mesh.multiplex.model_cache import ModelCache
from mesh.multiplex.model_limits import ModelLimits
from mesh.multiplex.model_stats import ModelStats
from mesh.multiplex.multiplex_decorator import get_multiplexed_model_id, model_registry, multiplexed
from mesh.wire import telemetry
from mesh.wire.request_context import RequestContext

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def inside_a_replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("mesh.multiplex.multiplex_decorator.in_replica", lambda: True)
    yield
    model_registry.on_change(None)


class Model:
    """Says what happens to it."""

    def __init__(self, model_id: str, log: list[str]) -> None:
        self.model_id = model_id
        self.log = log
        log.append(f"load {model_id}")

    def __del__(self) -> None:
        self.log.append(f"unload {self.model_id}")


class Zoo:
    """A user's class with a loader that its test holds back or breaks."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[str] = set()

    @multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> Model:
        await self.gate.wait()
        if model_id in self.broken:
            raise ZeroDivisionError(model_id)
        return Model(model_id, self.log)


@pytest.mark.parametrize("wrong", [7, "name", lambda model_id: model_id, print])
def test_only_async_functions_are_loaders(wrong: Any) -> None:
    """Both forms of decoration check the function (item 116, C9)."""
    with pytest.raises(TypeError):
        multiplexed(wrong)
    with pytest.raises(TypeError):
        multiplexed(max_num_models_per_replica=2)(wrong)


def test_a_loader_takes_one_id_or_an_object_and_one() -> None:
    """Methods and plain functions are loaders (items 115, 116)."""

    async def none() -> None: ...
    async def three(self: Any, a: str, b: str) -> None: ...

    for function in (none, three):
        with pytest.raises(TypeError, match="one parameter"):
            multiplexed(function)
        with pytest.raises(TypeError, match="one parameter"):
            multiplexed()(function)


@pytest.mark.parametrize(
    ("limit", "error"), [("2", TypeError), (1.5, TypeError), (True, TypeError), (0, ValueError), (-2, ValueError)]
)
def test_unusable_limits_are_refused(limit: Any, error: type[Exception]) -> None:
    """Wrong types and ranges raise at decoration (item 116)."""
    with pytest.raises(error):
        multiplexed(max_num_models_per_replica=limit)


async def test_a_loader_is_called_with_exactly_one_non_empty_id() -> None:
    """Keyword calls and other types are refused (items 117, 118)."""
    zoo = Zoo()
    for wrong in ((), ("a", "b"), (7,), (None,)):
        with pytest.raises(TypeError):
            await zoo.load(*wrong)
    with pytest.raises(TypeError):
        await zoo.load(model_id="a")
    with pytest.raises(ValueError, match="empty"):
        await zoo.load("")


async def test_outside_a_replica_a_loader_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models live in replicas only (item 118)."""
    monkeypatch.setattr("mesh.multiplex.multiplex_decorator.in_replica", lambda: False)
    with pytest.raises(RuntimeError, match="can only be used within a deployment"):
        await Zoo().load("a")


async def test_plain_functions_are_loaders_too() -> None:
    """A loader need not be a method (item 115)."""

    @multiplexed
    async def load(model_id: str) -> list[str]:
        return [model_id]

    assert await load("a") is await load("a")
    await model_registry.unload_all()


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


async def test_a_failed_load_reaches_its_waiters_and_caches_nothing() -> None:
    """The next request loads again (item 121)."""
    zoo = Zoo()
    zoo.broken = {"a"}
    results = await asyncio.gather(zoo.load("a"), zoo.load("a"), zoo.load("b"), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError, Model]
    assert sorted(model_registry.model_ids()) == ["b"]
    zoo.broken = set()
    assert (await zoo.load("a")).model_id == "a"


async def test_a_synchronous_finaliser_runs_once_and_in_a_thread() -> None:
    """`__del__` may block without blocking the loop (item 120)."""
    threads: list[int] = []

    class Threaded:
        def __del__(self) -> None:
            threads.append(threading.get_ident())

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Threaded:
        return Threaded()

    await load("a")
    await load("b")
    gc.collect()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    await model_registry.unload_all()
    gc.collect()
    assert len(threads) == 2


async def test_a_model_that_was_never_unloaded_is_still_finalised_by_python() -> None:
    """Only the unloaded object is neutralised, not its class (item 120)."""
    log: list[str] = []
    zoo = Zoo()
    zoo.log = log
    for model_id in "abc":
        await zoo.load(model_id)
    Model("stranger", log)
    gc.collect()
    assert log == ["load a", "load b", "unload a", "load c", "load stranger", "unload stranger"]


async def test_an_asynchronous_finaliser_is_awaited_once() -> None:
    """`async def __del__` works for models (item 120)."""
    unloaded: list[str] = []

    class Awaited:
        def __init__(self, model_id: str) -> None:
            self.model_id = model_id

        async def __del__(self) -> None:
            await asyncio.sleep(0)
            unloaded.append(self.model_id)

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Awaited:
        assert len(unloaded) == int(model_id)
        return Awaited(model_id)

    for model_id in range(3):
        await load(str(model_id))
    gc.collect()
    assert unloaded == ["0", "1"]
    await model_registry.unload_all()


async def test_inherited_finalisers_run_whole_and_once() -> None:
    """`super().__del__()` works (item 120)."""
    log: list[str] = []

    class Base:
        def __del__(self) -> None:
            log.append("base")

    class Derived(Base):
        def __del__(self) -> None:
            log.append("derived")
            super().__del__()

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Base:
        return Base() if model_id == "base" else Derived()

    for model_id in ("base", "derived", "base"):
        await load(model_id)
        gc.collect()
    assert log == ["base", "derived", "base"]
    await model_registry.unload_all()


async def test_an_error_of_a_finaliser_reaches_who_caused_the_eviction() -> None:
    """The request for the new model gets the error (item 120)."""

    class Stubborn:
        def __del__(self) -> None:
            raise OSError("will not go")

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Any:
        return Stubborn() if model_id == "stubborn" else model_id

    await load("stubborn")
    with pytest.raises(OSError, match="will not go"):
        await load("b")
    assert await load("b") == "b"
    await model_registry.unload_all()


async def test_two_loaders_of_one_class_keep_their_models_apart() -> None:
    """The same id may be loaded by both (C10)."""

    class Two:
        @multiplexed
        async def lower(self, model_id: str) -> str:
            return model_id.lower()

        @multiplexed
        async def upper(self, model_id: str) -> str:
            return model_id.upper()

    one, other = Two(), Two()
    assert [await one.lower("Id"), await one.upper("Id"), await other.lower("iD")] == ["id", "ID", "id"]
    assert sorted(model_registry.model_ids()) == ["Id", "iD"]


async def test_a_cache_does_not_keep_its_object_alive() -> None:
    zoo = Zoo()
    await zoo.load("a")
    dead = weakref.ref(zoo)
    del zoo
    gc.collect()
    assert dead() is None


async def test_ids_are_announced_while_they_load_and_when_they_go() -> None:
    """Callers hear of each change at once (item 122)."""
    announced: list[list[str]] = []
    zoo = Zoo()
    await zoo.load("a")
    await zoo.load("b")
    model_registry.on_change(announced.append)
    zoo.gate.clear()
    loading = asyncio.create_task(zoo.load("c"))
    await _until(lambda: len(announced) == 2)
    assert announced == [["a", "b", "c"], ["b", "c"]]
    assert not loading.done()
    zoo.gate.set()
    await loading
    assert announced[2:] == []
    assert model_registry.model_ids() == ["b", "c"]


async def test_unload_all_stops_loads_and_unloads_every_model_whatever_they_raise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A replica that stops keeps no model (item 123)."""

    class Stubborn(Model):
        def __del__(self) -> None:
            super().__del__()
            raise OSError("will not go")

    class StubbornZoo(Zoo):
        @multiplexed(max_num_models_per_replica=-1)
        async def load(self, model_id: str) -> Model:
            await self.gate.wait()
            return Stubborn(model_id, self.log)

    zoo = StubbornZoo()
    for model_id in "abcde":
        await zoo.load(model_id)
    zoo.gate.clear()
    loading = asyncio.create_task(zoo.load("f"))
    await asyncio.sleep(0)
    await model_registry.unload_all()
    assert [entry for entry in zoo.log if entry.startswith("unload")] == [f"unload {name}" for name in "abcde"]
    assert loading.cancelled()
    assert model_registry.model_ids() == []
    assert len(caplog.records) == 5


async def test_the_model_id_of_the_request_is_readable() -> None:
    """It is empty outside of a request (item 124)."""
    assert get_multiplexed_model_id() == ""
    token = REQUEST.set(Request(RequestContext(multiplexed_model_id="a")))
    assert get_multiplexed_model_id() == "a"
    REQUEST.reset(token)


async def test_a_load_is_nobodys_child() -> None:
    """The first request may be cancelled or late; its load serves others too (item 119)."""
    seen: list[Request | None] = []

    @multiplexed
    async def load(model_id: str) -> str:
        seen.append(current_request())
        return model_id

    asking = Request(RequestContext("id", app="app", multiplexed_model_id="a"), deadline_at_s=1.0)
    token = REQUEST.set(asking)
    await load("a")
    REQUEST.reset(token)
    assert seen[0] is not None
    assert seen[0] is not asking
    assert (seen[0].app, seen[0].multiplexed_model_id, seen[0].deadline_at_s) == ("app", "a", None)


async def test_a_loader_is_pickled_without_its_models() -> None:
    """Decorated classes travel by value into replicas."""

    class Local:
        @multiplexed(max_num_models_per_replica=2)
        async def load(self, model_id: str) -> list[str]:
            return [model_id]

    original = Local()
    model = await original.load("a")
    copy = cloudpickle.loads(cloudpickle.dumps(original))
    assert await copy.load("a") == model
    assert await copy.load("a") is not model


async def test_models_are_counted_and_measured() -> None:
    """Metrics of multiplexing, by function name."""

    @multiplexed(max_num_models_per_replica=1)
    async def counted(model_id: str) -> str:
        if model_id == "broken":
            raise ZeroDivisionError
        return model_id

    for model_id in ("a", "a", "b"):
        await counted(model_id)
    with pytest.raises(ZeroDivisionError):
        await counted("broken")
    figures = {
        "mesh_multiplexed_get_model_requests_total": 4,
        "mesh_multiplexed_models_load_total": 3,
        "mesh_multiplexed_models_load_failed_total": 1,
        "mesh_multiplexed_models_unload_total": 2,
        "mesh_num_multiplexed_models": 0,
    }
    assert {name: _metric(name, "counted").value for name in figures} == figures
    assert sum(_metric("mesh_multiplexed_model_load_latency_seconds", "counted").buckets) == 3


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
        await _until(lambda: sorted(cache.model_ids) == sorted(cache.resident_ids))
        assert set(cache.resident_ids) == in_memory
        assert await cache.unload_all() == []
        assert in_memory == set()
        assert peak <= limit

    asyncio.run(main())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # any step of the cache may be the one
            await asyncio.sleep(0)


def _metric(name: str, function_name: str) -> telemetry.Sample:
    samples = next(samples for family, samples in telemetry.collect() if family.name == name)
    return next(sample for sample in samples if sample.label_values[-1] == function_name)
