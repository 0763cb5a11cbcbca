"""Blocking work in threads: what is cancelled before it has begun keeps nothing alive."""

from __future__ import annotations

import asyncio
import threading
import weakref

from mesh.wire.blocking_work import Work, run_blocking


class Large:
    """Stands for what a work needs."""


def test_cancelled_work_lets_go_of_its_arguments_while_others_run() -> None:
    may_end = threading.Event()

    async def scenario() -> None:
        busy = [asyncio.create_task(run_blocking(Work.TRANSLATE, may_end.wait, 30)) for _ in range(4)]
        large = Large()
        known = weakref.ref(large)
        waiting = asyncio.create_task(run_blocking(Work.TRANSLATE, id, large))
        del large
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
        is_gone = known() is None
        may_end.set()
        await asyncio.gather(*busy)
        assert is_gone

    asyncio.run(scenario())
    assert may_end.is_set()
