"""The forms in which a loader may be written and named."""

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


async def test_the_parameters_have_the_names_of_ray_serve() -> None:
    """By position and by name (item 115)."""
    with replica_context():
        for decorated in (multiplexed(load), multiplexed(func=load), multiplexed(None, 2)(load), multiplexed()(load)):
            assert await decorated("a") == "a"
