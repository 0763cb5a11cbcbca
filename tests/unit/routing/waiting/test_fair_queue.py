"""The queue of many sources: they take turns, each with its oldest call, whatever comes back and is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.waiting.fair_queue import TURN_CALLS, FairQueue

SOURCES = "abcd"
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "send", "send", "restore", "remove", "merge", "drain"]), st.integers(0, 100)
    ),
    max_size=200,
)
BACKLOGS = st.lists(st.integers(1, 3 * TURN_CALLS), max_size=6)


class Model:
    """The same rules, written so that each is obvious."""

    def __init__(self) -> None:
        self.ring: list[str] = []
        self.left = TURN_CALLS
        self.calls: list[Any] = []

    def of(self, source: str) -> list[Any]:
        return sorted((call for call in self.calls if call.source == source), key=lambda call: call.sequence)

    def add(self, call: Any) -> None:
        self.calls.append(call)
        if call.source not in self.ring:
            self.ring.append(call.source)

    def remove(self, call: Any) -> None:
        self.calls.remove(call)
        if not self.of(call.source):
            self.left = TURN_CALLS if call.source == self.ring[0] else self.left
            self.ring.remove(call.source)

    def send(self) -> None:
        call = self.in_turn()[0]
        self.left -= 1
        if not self.left:
            self.left = TURN_CALLS
            self.ring.append(self.ring.pop(0))
        self.remove(call)

    def restore(self, call: Any) -> None:
        self.add(call)
        if self.ring[0] == call.source:
            self.left = min(self.left + 1, TURN_CALLS)
        else:
            self.ring.remove(call.source)
            self.ring.insert(0, call.source)
            self.left = 1

    def in_turn(self) -> list[Any]:
        lines, found, count = [self.of(source) for source in self.ring], list[Any](), self.left
        while any(lines):
            for line in lines:
                found += line[:count]
                del line[:count]
                count = TURN_CALLS
        return found


def call_of(source: str, sequence: int) -> Any:
    return SimpleNamespace(source=source, sequence=sequence, request=SimpleNamespace(source=source))


def send_first(queue: FairQueue) -> Any:
    call = queue.first
    queue.count_turn(call)
    queue.remove(call)
    return call


def send_all(queue: FairQueue) -> list[Any]:
    return [send_first(queue) for _ in range(len(queue))]


def filled(backlogs: list[int]) -> FairQueue:
    """A source for each number, which has as many calls."""
    queue, sequence = FairQueue(), 0
    for source, count in enumerate(backlogs):
        for _ in range(count):
            sequence += 1
            queue.push(call_of(str(source), sequence))
    return queue


@given(STEPS)
def test_sources_take_turns_whatever_happened_before(steps: list[tuple[str, int]]) -> None:
    queue, model, sent, pushed = FairQueue(), Model(), list[Any](), 0
    for step, number in steps:
        source = SOURCES[number % len(SOURCES)]
        match step:
            case "push":
                pushed += 1
                model.add(call := call_of(source, pushed))
                queue.push(call)
            case "send" if model.calls:
                call = queue.first
                assert call is model.in_turn()[0]
                model.send()
                sent.append(send_first(queue))
            case "restore" if sent:
                call = sent.pop(number % len(sent))
                model.restore(call)
                queue.restore(call)
            case "remove" if model.calls:
                call = model.calls[number % len(model.calls)]
                assert call in queue
                model.remove(call)
                queue.remove(call)
                queue.remove(call)
                assert call not in queue
            case "merge":
                late, sent = sent[::2], sent[1::2]
                for call in late:
                    model.add(call)
                queue.merge(late)
            case "drain":
                assert queue.drain() == sorted(model.calls, key=lambda call: call.sequence)
                model = Model()
        assert list(queue) == model.in_turn()
        assert len(queue) == len(model.calls)
        assert list(queue._lines) == model.ring
    assert send_all(queue) == model.in_turn()
    assert not queue._lines


@given(BACKLOGS, st.integers(0, 50))
def test_a_new_call_waits_for_one_turn_of_each_other_source(backlogs: list[int], sent_before: int) -> None:
    """However many calls the others have, and sent before."""
    queue = filled(backlogs)
    for _ in range(min(sent_before, len(queue))):
        send_first(queue)
    honest = call_of("honest", 10**6)
    queue.push(honest)
    order = send_all(queue)
    before = [call.source for call in order[: order.index(honest)]]
    assert all(before.count(source) <= TURN_CALLS for source in before)


@given(BACKLOGS)
def test_calls_of_one_source_leave_in_the_order_of_their_submission(backlogs: list[int]) -> None:
    """Also those of a handle, whose process is one source (item 158)."""
    order = send_all(filled(backlogs))
    for source in range(len(backlogs)):
        own = [call.sequence for call in order if call.source == str(source)]
        assert own == sorted(own)


@given(BACKLOGS.filter(bool), st.integers(0, 50))
def test_a_call_that_comes_back_has_its_turn_again(backlogs: list[int], sent_before: int) -> None:
    """A full replica has refused it, while nothing else was sent (item 163)."""
    queue = filled(backlogs)
    for _ in range(min(sent_before, len(queue) - 1)):
        send_first(queue)
    refused = send_first(queue)
    queue.restore(refused)
    assert queue.first is refused


@given(BACKLOGS.filter(lambda backlogs: len(backlogs) > 1))
def test_a_source_that_gives_up_a_call_keeps_its_turn(backlogs: list[int]) -> None:
    """Else one whose calls have short deadlines would never get a place."""
    queue = filled([2, *backlogs])
    queue.remove(queue.first)
    assert queue.first.source == "0"
