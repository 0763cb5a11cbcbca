"""mesh.controller.loop_watchdog: what hangs is found in fake time, and what a hung process says about itself."""

import asyncio
import threading
from collections.abc import Callable

from mesh.controller.loop_watchdog import LOOP_LAG, LoopWatchdog
from mesh.controller.stack_text import awaits_of, thread_stacks
from mesh.defaults.control_settings import ControllerSettings

LIMITS = ControllerSettings(hang_timeout_s=10.0, nodes_timeout_s=5.0, turn_interval_s=1.0)


class FakeLoop:
    """The event loop and the control loop, in fake time of one second a check."""

    thread = threading.current_thread()

    def __init__(self, limits: ControllerSettings = LIMITS) -> None:
        self.now_s = 0.0
        self.turns = 0
        self._posted: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self.watchdog = LoopWatchdog(self, lambda: self.turns, lambda reason: None, limits, lambda: self.now_s)

    def post(self, function: Callable[..., None], *args: object) -> None:
        self._posted.append((function, args))

    def after(self, seconds: int, *, runs: bool = True, turns: bool = True) -> str:
        """What hangs after some checks."""
        reason = ""
        for _ in range(seconds):
            self.now_s += 1
            self.turns += turns
            reason = self.watchdog.check()
            if runs:
                self.run()
        return reason

    def run(self) -> None:
        posted, self._posted = self._posted, []
        for function, args in posted:
            function(*args)

    @property
    def waiting(self) -> int:
        return len(self._posted)

    @property
    def lag_s(self) -> float:
        ((family, [sample]),) = self.watchdog.samples()
        assert family is LOOP_LAG
        return sample.value


def test_loops_that_run_never_hang() -> None:
    assert FakeLoop().after(1000) == ""


def test_an_event_loop_that_runs_nothing_hangs_after_the_timeout() -> None:
    """Whatever the number of checks, one beat waits for it."""
    loop = FakeLoop()
    loop.after(3)
    assert loop.after(10, runs=False) == ""
    assert loop.after(1, runs=False) == "the event loop has hung for 10 s"
    assert loop.waiting == 1


def test_a_turn_that_does_not_end_hangs_after_its_own_limits_and_the_timeout() -> None:
    loop = FakeLoop()
    loop.after(3)
    assert loop.after(16, turns=False) == ""
    assert loop.after(1, turns=False) == "a turn of the control loop has not ended for 17 s"


def test_a_long_pause_of_the_whole_process_is_no_hang() -> None:
    """Debuggers, SIGSTOP and machines that sleep stop the thread that checks too."""
    loop = FakeLoop()
    loop.after(3)
    loop.now_s += 10_000
    assert loop.after(9, runs=False, turns=False) == ""
    loop.run()
    assert loop.after(5) == ""


def test_the_lag_is_the_longest_delay_of_the_last_minute() -> None:
    loop = FakeLoop()
    loop.after(3)
    loop.after(1, runs=False)
    loop.now_s += 0.25
    loop.run()
    assert loop.lag_s == 0.25
    loop.after(60)
    assert loop.lag_s == 0.0


def test_a_short_timeout_still_takes_several_checks() -> None:
    loop = FakeLoop(ControllerSettings(hang_timeout_s=1.0))
    assert [loop.watchdog.check() for _ in range(5)] == ["", "", "", "", "the event loop has hung for 1 s"]


def test_zero_turns_the_watchdog_off() -> None:
    before = threading.active_count()
    FakeLoop(ControllerSettings(hang_timeout_s=0.0)).watchdog.start()
    assert threading.active_count() == before


def test_the_stacks_of_a_hung_process_name_the_functions_of_its_threads() -> None:
    is_released, has_begun = threading.Event(), threading.Event()

    def blocks_here() -> None:
        has_begun.set()
        is_released.wait()

    thread = threading.Thread(target=blocks_here)
    thread.start()
    try:
        assert has_begun.wait(30)
        assert "blocks_here" in thread_stacks()
    finally:
        is_released.set()
        thread.join()


def test_the_stack_of_a_task_ends_with_what_it_waits_for() -> None:
    async def main() -> None:
        async def outer() -> None:
            await inner()

        async def inner() -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(outer(), name="a turn")
        await asyncio.sleep(0)
        text = awaits_of(task)
        task.cancel()
        assert text.startswith("Task a turn:")
        assert -1 < text.find("await inner()") < text.find("await asyncio.Event().wait()")

    asyncio.run(main())
