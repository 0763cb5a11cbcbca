"""The forms in which a loader may be written and named."""

import asyncio
import functools

import pytest

from mesh import multiplexed
from mesh.testing import replica_context

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def load_from(store: str, model_id: str) -> str:
    return f"{store}/{model_id}"


async def load(model_id: str) -> str:
    return model_id


async def test_a_partial_is_a_loader() -> None:
    """Its errors name the function that it calls (items 115, 117)."""
    partial = multiplexed(functools.partial(load_from, "disk"), max_num_models_per_replica=1)
    with replica_context():
        assert await partial("a") == "disk/a"
        with pytest.raises(TypeError, match="load_from takes exactly one model id, 2 were given"):
            await partial("a", "b")  # type: ignore[call-arg]


class Nested:
    """Has models that are made of others."""

    @multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> str:
        return model_id

    @multiplexed(max_num_models_per_replica=2)
    async def load_pair(self, model_id: str) -> str:
        if model_id == "of itself":
            return await self.load_pair("other")
        return await self.load(model_id) * 2


async def test_a_loader_may_ask_another_one_and_not_itself() -> None:
    """Loads of one loader come one after the other, so that it would wait for itself (item 119)."""
    nested = Nested()
    with replica_context():
        assert await nested.load_pair("a") == "aa"
        with pytest.raises(RuntimeError, match="asks itself for model 'other'"):
            await nested.load_pair("of itself")
        assert await nested.load_pair("b") == "bb"


class Parts:
    """Its model is made of others, which its loader has a task, a thread or another loader ask for."""

    def __init__(self) -> None:
        self.behind: asyncio.Task[str] | None = None
        self.loaded = asyncio.Event()

    @multiplexed(max_num_models_per_replica=5)
    async def load(self, model_id: str) -> str:
        match model_id:
            case "of tasks":
                return "+".join(await asyncio.gather(self.load("a"), self.load("b")))
            case "of itself":
                return await asyncio.create_task(self.load("of itself"))
            case "of a thread":
                loop = asyncio.get_running_loop()
                return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(self.load("a"), loop).result())
            case "of another loader":
                return await self.relay("a")
            case "and then another":
                self.behind = asyncio.create_task(self.load_behind())
        return model_id

    @multiplexed(max_num_models_per_replica=5)
    async def relay(self, model_id: str) -> str:
        return await self.load(model_id)

    async def load_behind(self) -> str:
        await self.loaded.wait()
        return await self.load("a")


@pytest.mark.parametrize("model_id", ["of tasks", "of itself", "of a thread", "of another loader"])
async def test_a_loader_does_not_ask_itself_by_way_of_others_either(model_id: str) -> None:
    """It waits for them, so that its load would last until its callers have left (item 119)."""
    parts = Parts()
    with replica_context():
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match="asks itself for model"):
                await parts.load(model_id)
        assert await parts.load("a") == "a"


async def test_a_task_that_a_loader_has_started_may_ask_it_when_that_load_is_over() -> None:
    parts = Parts()
    with replica_context():
        assert await parts.load("and then another") == "and then another"
        parts.loaded.set()
        assert parts.behind is not None
        assert await parts.behind == "a"


async def test_the_parameters_have_the_names_of_ray_serve() -> None:
    """By position and by name (item 115)."""
    with replica_context():
        for decorated in (multiplexed(load), multiplexed(func=load), multiplexed(None, 2)(load), multiplexed()(load)):
            assert await decorated("a") == "a"
