"""@mesh.multiplexed: what a loader may be, its ids, its metrics, and its object (items 115–118, 123, C9, C10)."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from ray import cloudpickle

from mesh.context import REQUEST, Request, current_request
from mesh.multiplex.model_options import checked_aliases
from mesh.multiplex.multiplex_decorator import ModelRegistry, get_multiplexed_model_id, multiplexed
from mesh.wire import telemetry
from mesh.wire.request_context import RequestContext
from tests.unit.multiplex.zoo import Zoo

pytestmark = pytest.mark.anyio


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
    # No message to callers can hold it, and no new caller could connect to the replica.
    with pytest.raises(ValueError, match="A model id must be text that UTF-8 can encode"):
        await zoo.load("\udcff.bin")
    with pytest.raises(ValueError, match="A model id must be text that UTF-8 can encode"):
        checked_aliases({"newest": "\udcff.bin"})
    with pytest.raises(ValueError, match="A model id must be text that UTF-8 can encode"):
        multiplexed(preload=["\udcff.bin"])


async def test_outside_a_replica_a_loader_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models live in replicas only (item 118)."""
    monkeypatch.setattr("mesh.multiplex.multiplex_decorator.in_replica", lambda: False)
    with pytest.raises(RuntimeError, match="can only be used within a deployment"):
        await Zoo().load("a")


async def test_plain_functions_are_loaders_too(registry: ModelRegistry) -> None:
    """A loader need not be a method (item 115)."""

    @multiplexed
    async def load(model_id: str) -> list[str]:
        return [model_id]

    assert await load("a") is await load("a")
    await registry.unload_all()


async def test_two_loaders_of_one_class_keep_their_models_apart(registry: ModelRegistry) -> None:
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
    assert sorted(registry.model_ids()) == ["Id", "iD"]


async def test_a_cache_does_not_keep_its_object_alive() -> None:
    zoo = Zoo()
    await zoo.load("a")
    dead = weakref.ref(zoo)
    del zoo
    gc.collect()
    assert dead() is None


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


def _metric(name: str, function_name: str) -> telemetry.Sample:
    samples = next(samples for family, samples in telemetry.collect() if family.name == name)
    return next(sample for sample in samples if sample.label_values[-1] == function_name)
