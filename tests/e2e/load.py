"""Load: threads that call without a pause while something else happens, and the outcomes of their calls."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.e2e.waiting import until


class Load:
    """One thread per call function, from the beginning to the end of a `with` block."""

    def __init__(self, *calls: Callable[[], Any]) -> None:
        self.answers: list[Any] = []
        self.errors: list[BaseException] = []
        self.slowest_s = 0.0
        self._is_over = threading.Event()
        self.threads = [threading.Thread(target=self._keep_calling, args=(call,)) for call in calls]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self.threads:
            thread.join(timeout=30)

    def until_answered(self, count: int) -> None:
        """Waits for that many answers from now on."""
        goal = len(self.answers) + count
        until(lambda: len(self.answers) >= goal or self.errors, timeout_s=30)
        assert not self.errors, self.errors

    def _keep_calling(self, call: Callable[[], Any]) -> None:
        while not self._is_over.is_set():
            began_s = time.monotonic()
            try:
                self.answers.append(call())
            except Exception as error:
                self.errors.append(error)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
