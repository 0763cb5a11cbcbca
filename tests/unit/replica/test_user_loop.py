"""The user loop outlives what user code does to it."""

import asyncio
import threading

from mesh.replica.user_loop import UserLoop

DEADLINE_S = 30.0


async def answer() -> str:
    return threading.current_thread().name


def test_a_task_that_wants_to_end_the_process_does_not_end_the_loop() -> None:
    loop = UserLoop(is_isolated=True, threads_max=1)

    async def leave() -> None:
        asyncio.create_task(quit_now())  # noqa: RUF006 - user code is like that
        await asyncio.sleep(0)

    async def quit_now() -> None:
        raise SystemExit(1)

    try:
        loop.submit(leave())
        assert loop.submit(answer()).result(DEADLINE_S) == "mesh-user"
    finally:
        loop.stop()


def test_more_threads_take_more_calls_while_old_ones_go_on() -> None:
    loop = UserLoop(is_isolated=True, threads_max=1)
    gate, together = threading.Event(), threading.Barrier(3)
    try:
        old = loop.threads.submit(gate.wait, DEADLINE_S)
        loop.set_threads_max(3)
        new = [loop.threads.submit(together.wait, DEADLINE_S) for _ in range(3)]
        for future in new:
            future.result(DEADLINE_S)
        gate.set()
        assert old.result(DEADLINE_S)
    finally:
        loop.stop()


def test_code_that_has_found_the_old_threads_can_still_use_them() -> None:
    """A change of the limit closes them when the user loop comes to it, between two pieces of its code (item 187)."""
    loop = UserLoop(is_isolated=True, threads_max=1)
    entered, gate = threading.Event(), threading.Event()

    async def use() -> str:
        threads = loop.threads
        entered.set()
        gate.wait(DEADLINE_S)
        return await asyncio.wrap_future(threads.submit(lambda: "used"))

    try:
        used = loop.submit(use())
        assert entered.wait(DEADLINE_S)
        loop.set_threads_max(2)
        gate.set()
        assert used.result(DEADLINE_S) == "used"
    finally:
        gate.set()
        loop.stop()
