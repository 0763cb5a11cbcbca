"""Admission: never more than the limit, and a caller that takes the replica for full hears when a place gets free."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mesh.link.admission import Admission


class Listener:
    """A link that tries again after each load report."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.reported = -1
        self.pushes = 0

    def push_load(self) -> None:
        self.pushes += 1
        self.reported = self.admission.load_for(self)

    @property
    def believes_full(self) -> bool:
        return self.reported >= self.admission.limit


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "report", "forget", "limit"]), st.integers(0, 3)), max_size=60
    ),
)
def test_the_limit_holds_and_no_listener_is_left_believing_full(limit: int, steps: list[tuple[str, int]]) -> None:
    admission = Admission(limit)
    listeners = [Listener(admission) for _ in range(4)]
    forgotten: set[Listener] = set()
    for step, number in steps:
        listener = listeners[number]
        match step:
            case "enter":
                before = admission.ongoing
                assert admission.try_enter() == (before < admission.limit)
                assert admission.ongoing <= max(before, admission.limit)
            case "leave":
                if admission.ongoing:
                    admission.leave()
            case "report":
                forgotten.discard(listener)
                listener.push_load()
            case "forget":
                forgotten.add(listener)
                admission.forget(listener)
            case "limit":
                admission.set_limit(number + 1, [each for each in listeners if each.reported >= 0])
        if admission.ongoing < admission.limit:
            assert not any(each.believes_full for each in listeners if each not in forgotten)
            assert not admission._believe_full


def test_a_caller_that_wrongly_concludes_full_gets_the_load_immediately() -> None:
    admission = Admission(2)
    listener = Listener(admission)
    admission.watch(listener)
    assert listener.reported == 0


def test_a_caller_that_rightly_concludes_full_gets_the_load_later() -> None:
    admission = Admission(1)
    listener = Listener(admission)
    assert admission.try_enter()
    admission.watch(listener)
    assert listener.reported == -1
    admission.leave()
    assert listener.reported == 0


def test_an_end_that_frees_no_place_under_a_lowered_limit_is_not_reported() -> None:
    admission = Admission(3)
    listener = Listener(admission)
    for _ in range(3):
        assert admission.try_enter()
    admission.set_limit(2, [listener])
    assert listener.pushes == 1
    admission.leave()
    assert listener.pushes == 1, "two are left, as many as may be"
    admission.leave()
    assert (listener.pushes, listener.reported) == (2, 1)


def test_a_closed_admission_refuses_and_counts_the_refusals() -> None:
    admission = Admission(5)
    admission.close()
    assert not admission.try_enter()
    assert admission.rejected == 1


def test_idle_comes_with_the_last_call() -> None:
    async def scenario() -> None:
        admission = Admission(5)
        assert admission.try_enter()
        assert admission.try_enter()
        waiting = asyncio.create_task(admission.idle())
        await asyncio.sleep(0)
        admission.leave()
        await asyncio.sleep(0)
        assert not waiting.done()
        admission.leave()
        async with asyncio.timeout(10):
            await waiting

    asyncio.run(scenario())


def test_all_who_wait_for_idle_hear_of_it() -> None:
    async def scenario() -> None:
        admission = Admission(5)
        assert admission.try_enter()
        waiting = [asyncio.create_task(admission.idle()) for _ in range(2)]
        await asyncio.sleep(0)
        admission.leave()
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)

    asyncio.run(scenario())
