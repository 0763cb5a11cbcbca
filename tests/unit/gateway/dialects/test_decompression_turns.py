"""Compressed requests are decompressed in turns of the I/O loop, and connections take turns."""

from __future__ import annotations

import weakref

import pytest

from gateway.dialects.compression import DecompressionTurns
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.rpc.message_reader import MessageError, compressed
from tests.unit.fakes.turning_loop import TurningLoop

MIB = 1024 * 1024
MESSAGE = compressed(bytes(MIB), "gzip")
TURN = 4
"""Such messages fill a turn."""


class Client:
    """A connection that sends compressed messages."""

    def __init__(self, name: str, turns: DecompressionTurns, done: list[str], budget: BufferBudget) -> None:
        self.name = name
        self._turns = turns
        self._done = done
        self.share = BufferShare(budget)
        self.has_left = False
        self.fails = False

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            if self._turns.has_room:
                self._decompress()
            else:
                self._turns.wait(self.share, self._decompress)

    def _decompress(self) -> bool:
        if self.has_left:
            return False
        if self.fails:
            raise ValueError("broken")
        assert self._turns.decompressed(self.share, MESSAGE, "gzip", MIB) == bytes(MIB)
        self._done.append(self.name)
        return True


class Bench:
    """Clients of one loop."""

    def __init__(self) -> None:
        self.loop = TurningLoop()
        self.turns = DecompressionTurns(self.loop.as_loop)
        self.done: list[str] = []
        self.budget = BufferBudget(1024 * MIB)
        self._clients: list[Client] = []

    def client(self, name: str) -> Client:
        self._clients.append(Client(name, self.turns, self.done, self.budget))
        return self._clients[-1]

    def forget_clients(self) -> None:
        self._clients.clear()


def test_what_fits_into_a_turn_does_not_wait() -> None:
    bench = Bench()
    bench.client("a").send(TURN)
    assert bench.done == ["a"] * TURN


def test_the_rest_of_a_burst_follows_turn_by_turn() -> None:
    bench = Bench()
    bench.client("a").send(2 * TURN + 1)
    counts = [len(bench.done)]
    for _ in range(3):
        bench.loop.turn()
        counts.append(len(bench.done))
    assert counts == [TURN, 2 * TURN, 2 * TURN + 1, 2 * TURN + 1]


def test_a_client_waits_for_one_message_of_each_other_one_and_not_for_all() -> None:
    bench = Bench()
    greedy = [bench.client("x"), bench.client("y")]
    for each in greedy:
        each.send(100)
    bench.client("honest").send()
    bench.loop.turn()
    assert "honest" in bench.done
    assert len(bench.done) == 2 * TURN


def test_what_comes_later_does_not_overtake_what_waits() -> None:
    bench = Bench()
    bench.client("x").send(TURN + 1)
    bench.loop.turn()
    bench.client("y").send(TURN)
    assert bench.done == ["x"] * (TURN + 1) + ["y"] * (TURN - 1)


def test_a_message_that_is_refused_counts_as_the_work_that_it_took() -> None:
    bench = Bench()
    share = bench.client("x").share
    with pytest.raises(MessageError):
        bench.turns.decompressed(share, compressed(bytes(8 * MIB), "gzip"), "gzip", TURN * MIB)
    assert not bench.turns.has_room


def test_small_messages_count_too() -> None:
    bench = Bench()
    share, empty = bench.client("x").share, compressed(b"", "gzip")
    for _ in range(1024):
        bench.turns.decompressed(share, empty, "gzip", MIB)
    assert not bench.turns.has_room


def test_a_gateway_that_buffers_much_decompresses_at_a_pace() -> None:
    bench = Bench()
    bench.budget.used_bytes = 100 * MIB
    bench.client("x").send(TURN + 1)
    bench.loop.turn()
    assert bench.loop.delays_s == [TURN / 128]
    assert bench.done == ["x"] * TURN
    bench.loop.turn()
    assert bench.done == ["x"] * (TURN + 1)


def test_calls_that_have_ended_take_no_turn_and_are_not_kept_behind_those_that_go_on() -> None:
    bench = Bench()
    bench.client("first").send(TURN)
    left, other = bench.client("left"), bench.client("other")
    left.send(1_000)
    other.send(2 * TURN)
    left.has_left = True
    assert weakref.getweakrefcount(left) == 1_000
    bench.loop.turn()
    assert bench.done == ["first"] * TURN + ["other"] * TURN
    assert weakref.getweakrefcount(left) == 0


def test_what_waits_of_a_call_that_is_gone_is_not_kept_until_its_turn() -> None:
    bench = Bench()
    client = bench.client("a")
    client.send(TURN + 100)
    gone = weakref.ref(client)
    del client
    bench.forget_clients()
    assert gone() is None
    bench.client("b").send()
    bench.loop.turn()
    assert bench.done == ["a"] * TURN + ["b"]


def test_one_that_fails_holds_no_other_up() -> None:
    bench = Bench()
    bench.client("x").send(TURN)
    broken = bench.client("y")
    broken.fails = True
    broken.send()
    bench.client("z").send()
    with pytest.raises(ValueError, match="broken"):
        bench.loop.turn()
    bench.loop.turn()
    assert bench.done[-1] == "z"
