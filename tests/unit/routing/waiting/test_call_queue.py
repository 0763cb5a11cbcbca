"""The queue: by order of submission, whatever comes back and whatever is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.waiting.call_queue import PendingQueue

STEPS = st.lists(st.tuples(st.sampled_from(["push", "pop", "restore", "remove", "drain"]), st.integers(0, 100)))


@given(STEPS)
def test_the_oldest_comes_first_whatever_happened_before(steps: list[tuple[str, int]]) -> None:
    queue, waiting, taken, pushed = PendingQueue(), dict[int, Any](), list[Any](), 0
    for step, number in steps:
        match step:
            case "push":
                pushed += 1
                waiting[pushed] = SimpleNamespace(sequence=pushed)
                queue.push(waiting[pushed])
            case "pop" if waiting:
                call = queue.pop()
                assert call is waiting.pop(min(waiting))
                taken.append(call)
            case "restore" if taken:
                call = taken.pop(number % len(taken))
                waiting[call.sequence] = call
                queue.restore(call)
            case "remove" if waiting:
                call = waiting.pop(sorted(waiting)[number % len(waiting)])
                assert call in queue
                queue.remove(call)
                queue.remove(call)
                assert call not in queue
            case "drain":
                assert [call.sequence for call in queue.drain()] == sorted(waiting)
                waiting.clear()
        assert len(queue) == len(waiting)
    assert [queue.pop().sequence for _ in range(len(queue))] == sorted(waiting)
