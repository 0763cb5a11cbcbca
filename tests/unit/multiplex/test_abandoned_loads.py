"""Loads whose callers have all left: they go on for a while, and then no longer hold up other models (item 119)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mesh.multiplex.model_cache import ModelCache
from mesh.multiplex.model_limits import ModelLimits
from mesh.multiplex.model_stats import ModelStats
from mesh.settings import settings
from tests.sim.fake_time import run_in_fake_time

TIMEOUT_S = settings().replica.abandoned_load_timeout_s


class Loader:
    """Loads "slow" once a test opens the gate, and other models immediately."""

    def __init__(self, *, ignores_cancel: bool = False) -> None:
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self._ignores_cancel = ignores_cancel
        self.cache = ModelCache(self._load, ModelLimits(3), ModelStats("load", lambda: 0, lambda: 0), lambda: None)

    async def _load(self, model_id: str) -> str:
        self.begun.append(model_id)
        try:
            if model_id == "slow":
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(model_id)
            if not self._ignores_cancel:
                raise
        return f"model {model_id}"

    async def ask_and_leave(self, model_id: str) -> None:
        asking = asyncio.create_task(self.cache.get(model_id))
        await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def test_a_load_that_hangs_is_cancelled_when_no_call_has_waited_for_it_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other models of its loader load then."""

    async def main() -> None:
        loader = Loader()
        await loader.ask_and_leave("slow")
        left_at_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(TIMEOUT_S * 2):
            assert await loader.cache.get("quick") == "model quick"
        assert asyncio.get_running_loop().time() == pytest.approx(left_at_s + TIMEOUT_S)
        assert loader.cancelled == ["slow"]
        assert loader.cache.model_ids == ["quick"]

    with caplog.at_level(logging.WARNING, "mesh"):
        run_in_fake_time(main())
    assert "stopping the load of model 'slow'" in caplog.text


def test_callers_that_come_back_keep_a_load_going() -> None:
    """A model that loads for longer than its callers wait is there in the end."""

    async def main() -> None:
        loader = Loader()
        for _ in range(5):
            await loader.ask_and_leave("slow")
            await asyncio.sleep(TIMEOUT_S * 0.9)
        asking = asyncio.create_task(loader.cache.get("slow"))
        await asyncio.sleep(TIMEOUT_S * 2)
        loader.gate.set()
        assert await asking == "model slow"
        assert (loader.begun, loader.cancelled) == (["slow"], [])

    run_in_fake_time(main())


@pytest.mark.parametrize("ignores_cancel", [False, True])
def test_a_call_that_asks_while_a_load_is_cancelled_gets_the_model(ignores_cancel: bool) -> None:
    """By a load of its own, unless the first one finishes nevertheless: no model is loaded over another."""

    async def main() -> None:
        loader = Loader(ignores_cancel=ignores_cancel)
        await loader.ask_and_leave("slow")
        loader.cache._loading["slow"]._abandon()
        asking = asyncio.create_task(loader.cache.get("slow"))
        await asyncio.sleep(1.0)
        loader.gate.set()
        assert await asking == "model slow"
        assert loader.begun == (["slow"] if ignores_cancel else ["slow", "slow"])
        assert loader.cache.resident_ids == ["slow"]

    run_in_fake_time(main())
