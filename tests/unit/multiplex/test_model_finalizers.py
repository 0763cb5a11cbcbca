"""The end of a model: its finaliser runs once, whatever it is, and its errors are seen (items 120, 123)."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from mesh.multiplex.multiplex_decorator import ModelRegistry, multiplexed
from tests.unit.multiplex.zoo import Model, Zoo

pytestmark = pytest.mark.anyio

BOUND_S = 30.0


async def test_a_synchronous_finaliser_runs_once_and_in_a_thread(registry: ModelRegistry) -> None:
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
    await registry.unload_all()
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


async def test_an_asynchronous_finaliser_is_awaited_once(registry: ModelRegistry) -> None:
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
    await registry.unload_all()


async def test_inherited_finalisers_run_whole_and_once(registry: ModelRegistry) -> None:
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
    await registry.unload_all()


async def test_an_error_of_a_finaliser_reaches_who_caused_the_eviction(registry: ModelRegistry) -> None:
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
    await registry.unload_all()


async def test_a_finaliser_that_asks_an_empty_iterator_leaves_no_one_waiting(registry: ModelRegistry) -> None:
    """A StopIteration in a thread is an error like others (item 120)."""

    class Emptied:
        def __del__(self) -> None:
            next(iter(()))

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Any:
        return Emptied() if model_id == "emptied" else model_id

    await load("emptied")
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await asyncio.wait_for(load("b"), BOUND_S)
    assert await load("b") == "b"
    await registry.unload_all()


async def test_a_finaliser_of_a_class_that_cannot_be_changed_runs_once(registry: ModelRegistry) -> None:
    """Its metaclass says so, as those of frozen classes do (item 120)."""

    class Frozen(type):
        def __setattr__(cls, name: str, value: object) -> None:
            raise AttributeError(f"{name} cannot be set")

    ended: list[str] = []

    class FrozenModel(metaclass=Frozen):
        def __del__(self) -> None:
            ended.append("frozen")

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Any:
        return FrozenModel() if model_id == "frozen" else model_id

    await load("frozen")
    assert await load("b") == "b"
    gc.collect()
    assert ended == ["frozen"]
    await registry.unload_all()


class Fatal(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("error", [OSError("will not go"), SystemExit(3), KeyboardInterrupt(), Fatal()])
async def test_unload_all_stops_loads_and_unloads_every_model_whatever_they_raise(
    registry: ModelRegistry, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """A replica that stops keeps no model (item 123)."""

    class Stubborn(Model):
        def __del__(self) -> None:
            super().__del__()
            raise error

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
    await registry.unload_all()
    assert [entry for entry in zoo.log if entry.startswith("unload")] == [f"unload {name}" for name in "abcde"]
    assert loading.cancelled()
    assert registry.model_ids() == []
    assert len(caplog.records) == 5
