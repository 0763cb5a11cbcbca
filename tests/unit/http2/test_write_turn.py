"""Writing at the end of a turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mesh.http2.write_turn import ENOUGH, WriteTurn, write_turn


class Loop:
    """Keeps what was to be called soon."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)


def turn_of(loop: Loop) -> WriteTurn:
    stand_in: Any = loop
    return WriteTurn(stand_in)


def test_outside_of_a_turn_writing_is_soon() -> None:
    loop, written = Loop(), list[str]()
    turn_of(loop).add(lambda: written.append("a"))
    assert not written
    (function,) = loop.soon
    function()
    assert written == ["a"]


def test_writing_waits_for_the_end_of_the_outermost_turn() -> None:
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    turn.begin()
    turn.begin()
    turn.add(lambda: written.append("a"))
    turn.add(lambda: written.append("b"))
    turn.end()
    assert not written
    turn.end()
    assert (written, loop.soon) == (["a", "b"], [])
    turn.begin()
    turn.end()
    assert written == ["a", "b"]


def test_turns_that_end_soon_are_written_together() -> None:
    """Each socket of HTTP/1.1 brings one request: links are written once for all that were read in one go."""
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    for name in ("a", "b"):
        turn.begin()
        turn.add(lambda name=name: written.append(name))
        turn.end_soon()
    assert not written
    (function,) = loop.soon
    function()
    assert written == ["a", "b"]
    turn.begin()
    turn.end_soon()
    assert len(loop.soon) == 1


@pytest.mark.parametrize(("waiting", "is_early"), [(ENOUGH - 1, False), (ENOUGH, True)])
def test_a_long_turn_writes_early_what_is_enough(waiting: int, is_early: bool) -> None:
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    turn.begin()
    turn.add(lambda: written.append("a"))
    turn.waiting += waiting
    turn.write_early()
    assert written == (["a"] if is_early else [])
    turn.add(lambda: written.append("b"))
    turn.waiting += 1
    turn.write_early()
    assert "b" not in written or not is_early, "after a write it takes as many again"
    turn.end()
    assert (written, loop.soon) == (["a", "b"], [])


def test_what_an_early_write_makes_due_leaves_with_it() -> None:
    """A link's frames become a message of its connection, which is written as well."""
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    turn.begin()
    turn.add(lambda: turn.add(lambda: written.append("the message of the frames")))
    turn.waiting += ENOUGH
    turn.write_early()
    assert written == ["the message of the frames"]


def test_nothing_is_written_early_outside_of_a_turn() -> None:
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    turn.add(lambda: written.append("a"))
    turn.waiting += ENOUGH
    turn.write_early()
    assert not written
    assert len(loop.soon) == 1


def test_turns_that_end_soon_are_written_when_they_have_brought_enough() -> None:
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    for _ in range(ENOUGH):
        assert not written
        turn.begin()
        turn.add(lambda: written.append("a"))
        turn.waiting += 1
        turn.end_soon()
    assert written == ["a"] * ENOUGH
    loop.soon.pop()()
    assert written == ["a"] * ENOUGH


def test_what_waits_for_the_end_of_several_turns_leaves_with_a_turn_that_ends_now() -> None:
    loop, written = Loop(), list[str]()
    turn = turn_of(loop)
    turn.begin()
    turn.add(lambda: written.append("a"))
    turn.end_soon()
    turn.begin()
    turn.end()
    assert written == ["a"]
    loop.soon.pop()()
    assert written == ["a"]


def test_what_writing_makes_due_is_written_in_the_same_turn() -> None:
    written: list[str] = []
    turn = turn_of(Loop())

    def first() -> None:
        turn.begin()
        turn.add(lambda: written.append("second"))
        turn.end()
        written.append("first")

    turn.begin()
    turn.add(first)
    turn.end()
    assert written == ["second", "first"]


def test_one_write_that_fails_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    written: list[str] = []
    turn = turn_of(Loop())

    def fail() -> None:
        raise OSError("a broken socket")

    turn.begin()
    turn.add(fail)
    turn.add(lambda: written.append("a"))
    turn.end()
    assert written == ["a"]
    assert len(caplog.records) == 1


def test_each_loop_has_one_turn() -> None:
    async def mine() -> tuple[WriteTurn, WriteTurn]:
        return write_turn(), write_turn()

    first, again = asyncio.run(mine())
    other, _ = asyncio.run(mine())
    assert first is again
    assert first is not other
    of_threads: list[WriteTurn] = []
    thread = threading.Thread(target=lambda: of_threads.append(asyncio.run(mine())[0]))
    thread.start()
    thread.join(30)
    assert of_threads[0].loop is not other.loop
