"""The metrics page under many that ask: how often it is made, and how much of the time that takes."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.ops.exposition import TextForm
from gateway.ops.metric_sums import Families
from gateway.ops.metrics_page import MetricsPage
from mesh.wire.telemetry import COUNTER, Family, Sample
from tests.unit.gateway.fakes import on_io_loop, until

CALLS = Family("calls_total", COUNTER, "Calls.")


class Node:
    """A node whose scrapes count themselves, and time that passes as the test says."""

    def __init__(self, scrape_takes_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.scrapes = 0
        self.pauses_s: list[float] = []
        self.fails = False
        self._takes_s = scrape_takes_s
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self.page = MetricsPage(TextForm.CLASSIC, self._scrape, lambda: self.now_s, self._sleep)

    def hold(self) -> None:
        self._may_answer.clear()

    def answer(self) -> None:
        self._may_answer.set()

    async def count(self) -> float:
        """What a page says."""
        (family,) = text_string_to_metric_families((await self.page.read()).decode())
        return next(each.value for each in family.samples if each.name == "calls_total")

    async def _scrape(self) -> Families:
        self.scrapes += 1
        self.now_s += self._takes_s
        await self._may_answer.wait()
        if self.fails:
            raise RuntimeError("a process sent nonsense")
        return [(CALLS, [Sample((), self.scrapes)])]

    async def _sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


def test_a_thousand_that_ask_at_once_get_the_page_that_was_made_once() -> None:
    async def scenario() -> None:
        node = Node()
        node.hold()
        first = asyncio.create_task(node.count())
        await until(lambda: node.scrapes == 1, "the first page")
        others = [asyncio.create_task(node.page.read()) for _ in range(1_000)]
        await asyncio.sleep(0)
        others[0].cancel()
        node.answer()
        assert await first == 1
        assert len({id(each) for each in await asyncio.gather(*others[1:])}) == 1, "all share the bytes, too"
        assert others[0].cancelled()
        assert node.scrapes == 2

    on_io_loop(scenario())


def test_a_page_shows_what_was_counted_until_it_was_asked_for() -> None:
    async def scenario() -> None:
        node = Node()
        assert [await node.count() for _ in range(3)] == [1, 2, 3]

    on_io_loop(scenario())


@pytest.mark.parametrize(("takes_s", "pause_s"), [(0.01, 0.04), (0.125, 0.5), (30.0, 1.0)])
def test_one_that_asks_again_and_again_takes_a_fifth_of_the_time(takes_s: float, pause_s: float) -> None:
    """A stranger cannot keep the gateway at work; a scrape every few seconds does not wait."""

    async def scenario() -> None:
        node = Node(takes_s)
        for _ in range(3):
            await node.page.read()
        assert node.pauses_s == pytest.approx([pause_s, pause_s])
        node.now_s += 15
        await node.page.read()
        assert len(node.pauses_s) == 2

    on_io_loop(scenario())


def test_a_page_that_cannot_be_made_fails_for_those_that_wait_for_it_and_the_next_one_is_made() -> None:
    async def scenario() -> None:
        node = Node(0.01)
        node.fails = True
        failed = await asyncio.gather(node.page.read(), node.page.read(), return_exceptions=True)
        assert [str(each) for each in failed] == ["a process sent nonsense"] * 2
        node.fails = False
        assert await node.count() == 2
        assert node.pauses_s == pytest.approx([0.04])

    on_io_loop(scenario())
