"""A deployment with one method of every kind, and exceptions that are hard to carry."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mesh.handle import DeploymentHandle

DEADLINE_S = 30.0


class OddError(Exception):
    """Cannot be built from its `args`."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"odd {code}")
        self.code = code


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Store:
    """One method of every kind."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.peer: DeploymentHandle[Any] | None = None
        self.started = 0
        self.cancelled = 0
        self.produced = 0
        self.closed = 0
        self.children_ended = 0
        self.ended_by: type[BaseException] | None = None

    async def __call__(self, value: Any = None) -> Any:
        return value

    def plain(self, value: Any = None) -> Any:
        return value

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def wait_for_hang(self) -> None:
        """Waits in a thread for a call that it makes."""
        assert self.peer is not None
        try:
            self.peer.hang.remote().result(timeout_s=DEADLINE_S)
        finally:
            self.children_ended += 1

    def block(self) -> str:
        self.started += 1
        assert self.gate.wait(DEADLINE_S)
        return "unblocked"

    async def block_the_loop(self) -> str:
        return self.block()

    async def count(self, items: int) -> AsyncIterator[int]:
        try:
            for number in range(items):
                self.produced += 1
                yield number
        finally:
            self.closed += 1

    async def large(self, items: int, item_bytes: int) -> AsyncIterator[bytes]:
        for number in range(items):
            self.produced += 1
            yield bytes([number]) * item_bytes

    def count_plain(self, items: int) -> Iterator[int]:
        try:
            for number in range(items):
                self.produced += 1
                yield number
        finally:
            self.closed += 1

    def count_when_open(self, items: int) -> Iterator[int]:
        self.block()
        yield from range(items)

    def count_indirect(self, items: int) -> AsyncIterator[int]:
        """A `def` method that runs in a thread and returns an async generator."""
        return self.count(items)

    def relay(self, items: int) -> Any:
        """Returns the responses of another streaming call."""
        assert self.peer is not None
        return self.peer.options(method_name="count", stream=True).remote(items)

    async def relay_async(self, items: int) -> Any:
        return self.relay(items)

    async def stubborn(self) -> AsyncIterator[int]:
        """Goes on yielding after a cancel."""
        while True:
            try:
                self.produced += 1
                yield 1
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.cancelled += 1

    async def count_up(self) -> AsyncIterator[int]:
        """Without an end and without an `await`: a cancel meets it at its `yield`."""
        try:
            for number in itertools.count():
                yield number
        except BaseException as error:
            self.ended_by = type(error)
            raise

    def count_up_returned(self) -> AsyncIterator[int]:
        return self.count_up()

    async def count_up_until_cancelled(self) -> AsyncIterator[int]:
        with contextlib.suppress(asyncio.CancelledError):
            for number in itertools.count():
                yield number
        self.ended_by = StopIteration

    async def fail_after(self, items: int) -> AsyncIterator[int]:
        for number in range(items):
            yield number
        raise ZeroDivisionError("enough")

    async def fail(self, error: str) -> None:
        errors: dict[str, Callable[[], BaseException]] = {
            "odd": lambda: OddError(code=7),
            "locked": LockedError,
            "mute": MuteError,
            "exit": lambda: SystemExit(3),
            "surrogate": lambda: ValueError("no such file: \udcff"),
            "zero": lambda: ZeroDivisionError("none"),
        }
        raise errors[error]()

    async def unpicklable(self) -> Any:
        return threading.Lock()


STREAMS = ("count", "count_plain", "count_indirect")


def result(response: Any) -> Any:
    return response.result(timeout_s=DEADLINE_S)


def raised(response: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - what it is, is what the test looks at
        result(response)
    return caught.value


async def value_of(response: Any) -> Any:
    return await response
