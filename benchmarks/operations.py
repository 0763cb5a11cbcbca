"""The cost of operations: failed calls during updates and after a kill, and the time to start many replicas."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.rows import Figure

REPLICAS = 40
UPDATES = 5
CALLERS = 4
CALL_TIMEOUT_S = 60.0
WARM_UP_CALLS = 100
AFTER_S = 5.0


class Operated(Protocol):
    def run(self, user_class: type, argument: Any, *, name: str, num_replicas: int) -> Any:
        """Deploy or update an application of one deployment. Returns its handle when it runs."""

    def delete(self, name: str) -> None: ...


class NoOp:
    def __init__(self, version: int) -> None:
        self._version = version

    async def __call__(self) -> int:
        return self._version

    async def pid(self) -> int:
        return os.getpid()


@dataclass
class Calls:
    """Results of callers that called without a pause."""

    answers: list[Any] = field(default_factory=list)
    longest_s: float = 0.0
    failed: int = 0

    def make(self, call: Callable[[], Any], is_over: threading.Event) -> None:
        while not is_over.is_set():
            began_s = time.perf_counter()
            try:
                self.answers.append(call())
            except Exception:  # any exception of a system is one failed call
                self.failed += 1
            else:
                self.longest_s = max(self.longest_s, time.perf_counter() - began_s)


def measure_operations(system: Operated) -> Iterator[Figure]:
    yield from _updates(system)
    yield from _kill(system)
    yield "start_many", _start_many(system)


def _start_many(system: Operated) -> float:
    """Seconds until all of them run."""
    began_s = time.perf_counter()
    system.run(NoOp, 0, name="many", num_replicas=REPLICAS)
    took_s = time.perf_counter() - began_s
    system.delete("many")
    return took_s


def _updates(system: Operated) -> Iterator[Figure]:
    handle = system.run(NoOp, 0, name="updated", num_replicas=1)

    def update() -> None:
        for version in range(1, UPDATES + 1):
            system.run(NoOp, version, name="updated", num_replicas=1)

    calls = _calls_during(lambda: handle.remote().result(timeout_s=CALL_TIMEOUT_S), update)
    system.delete("updated")
    yield "update_longest", calls.longest_s * 1000
    yield "update_failed", calls.failed


def _kill(system: Operated) -> Iterator[Figure]:
    handle = system.run(NoOp, 0, name="killed", num_replicas=2)
    pid = handle.options(method_name="pid")

    def kill() -> None:
        os.kill(pid.remote().result(timeout_s=CALL_TIMEOUT_S), signal.SIGKILL)
        # Long enough for the system to notice it and to start the next replica.
        time.sleep(AFTER_S)

    calls = _calls_during(lambda: pid.remote().result(timeout_s=CALL_TIMEOUT_S), kill)
    system.delete("killed")
    yield "kill_longest", calls.longest_s * 1000
    yield "kill_failed", calls.failed


def _calls_during(call: Callable[[], Any], work: Callable[[], None]) -> Calls:
    """Callers call without a pause before, during and after `work`."""
    calls, is_over = Calls(), threading.Event()
    callers = [threading.Thread(target=calls.make, args=(call, is_over)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    while len(calls.answers) < WARM_UP_CALLS:
        time.sleep(0.01)
    calls.longest_s = 0.0
    work()
    is_over.set()
    for caller in callers:
        caller.join()
    return calls
