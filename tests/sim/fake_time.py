"""An event loop whose time passes only when there is nothing else to do."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_RUN_MAX_S = 100.0
"""CPU time of one run, in which the machine may be busy with something else: a loop of endless timers would outlast
pytest's own limit, whose exception asyncio swallows."""


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Timers fire in order without waiting, and calls to threads run immediately in the loop. Nothing depends on the
    machine, so a seeded run repeats exactly."""

    def __init__(self) -> None:
        self._selector_of_time = _TimeSelector()
        super().__init__(self._selector_of_time)

        self.thread_delay_s = 0.0
        """How long what runs in a thread takes."""

    def time(self) -> float:
        return self._selector_of_time.now_s

    def stall(self, seconds: float) -> None:
        """The process stands still. All that should have happened meanwhile happens afterwards, in its order."""
        self._selector_of_time.now_s += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        if not self.thread_delay_s:
            future.set_result(func(*args))
        else:
            # Like a thread it goes on when nothing waits for it any more.
            self.call_later(self.thread_delay_s, _run, future, func, args)
        return future


def _run(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except BaseException as error:
        if not future.done():
            future.set_exception(error)
        return
    if not future.done():
        future.set_result(result)


def fake_time_loop() -> FakeTimeLoop:
    """The loop that this runs in."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeTimeLoop)
    return loop


class _TimeSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._ends_at_s = time.thread_time() + _RUN_MAX_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        if time.thread_time() > self._ends_at_s:
            raise RuntimeError(f"not done after {_RUN_MAX_S:g} s of CPU time and {self.now_s:g} s of fake time")
        if timeout > 0:
            self.now_s += timeout
        return []  # nothing comes from outside: the kernel need not be asked


def run_in_fake_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end. Failed assertions and waits without an end are raised here. Tests that are coroutines
    need no call: `conftest.py` makes it."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)
