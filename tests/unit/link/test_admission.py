"""Admission: never more than the limit, and every free place is offered to one caller that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from mesh.link.admission import Admission


class Caller:
    """A link that holds its calls back while it takes the replica for full, and answers offers when a test wants it."""

    def __init__(self, admission: Admission, calls: int = 0) -> None:
        self.admission = admission
        self.reported = -1
        self.pushes = 0
        self.offers = 0
        self.calls = calls

    def push_load(self) -> None:
        self.pushes += 1
        self.reported = self.admission.load_for(self)

    def offer_place(self) -> None:
        self.offers += 1
        self.reported = self.admission.load_for(self)

    @property
    def believes_full(self) -> bool:
        return self.reported >= self.admission.limit

    def answer(self) -> bool:
        """Answer an offer with a call, if there is one; returns whether that was admitted."""
        self.offers -= 1
        if not self.calls:
            self.admission.decline(self)
            return False
        self.calls -= 1
        return self.admission.try_enter(self)


class Looks:
    """Runs what an admission does later, when a test says that the time has come."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        assert delay_s > 0
        self.due.append(function)

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for function in due:
            function()


def admission_of(limit: int) -> Admission:
    """One whose offers last."""
    return Admission(limit, Looks().later)


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave", "report", "answer", "call", "remove", "limit", "look"]),
            st.integers(0, 3),
        ),
        max_size=80,
    ),
)
def test_the_limit_holds_and_every_free_place_is_offered(limit: int, steps: list[tuple[str, int]]) -> None:
    looks = Looks()
    admission = Admission(limit, looks.later)
    callers = [Caller(admission) for _ in range(4)]
    for step, number in steps:
        caller = callers[number]
        match step:
            case "enter":
                before = admission.ongoing
                admission.try_enter(caller)
                caller.offers = 0
                assert admission.ongoing <= max(before, admission.limit)
            case "leave":
                if admission.ongoing:
                    admission.leave()
            case "report":
                caller.push_load()
            case "answer":
                if caller.offers:
                    had_call, has_place = bool(caller.calls), admission.has_place_for(caller)
                    assert caller.answer() == (had_call and has_place)
            case "call":
                caller.calls += 1
            case "remove":
                admission.remove(caller)
                callers[number] = Caller(admission)
            case "limit":
                admission.set_limit(number + 1, [each for each in callers if each.reported >= 0])
            case "look":
                looks.pass_time()
        assert admission._offered.keys() <= {each for each in callers if each.offers}
        assert len(looks.due) == bool(admission._offered) or not admission._offered
        if admission.taken < admission.limit:
            assert not admission._waiting, "a place is free that some caller waits for"


def test_places_go_round_among_those_who_wait() -> None:
    admission = admission_of(1)
    busy, *waiting = (Caller(admission, calls=1) for _ in range(4))
    assert admission.try_enter(busy)
    for each in waiting:
        admission.watch(each)
    order = []
    for _ in waiting:
        admission.leave()
        (chosen,) = [each for each in waiting if each.offers]
        assert not admission.try_enter(busy), "the place is kept for the one that was offered it"
        assert chosen.answer()
        order.append(chosen)
    assert order == waiting


def test_a_declined_place_is_offered_to_the_next() -> None:
    admission = admission_of(1)
    busy, without_call, other = Caller(admission), Caller(admission), Caller(admission, calls=1)
    assert admission.try_enter(busy)
    admission.watch(without_call)
    admission.watch(other)
    admission.leave()
    assert (without_call.offers, other.offers) == (1, 0)
    assert not without_call.answer()
    assert other.answer()


def test_the_offer_of_a_caller_that_is_gone_goes_to_the_next() -> None:
    admission = admission_of(1)
    busy, leaving, other = Caller(admission), Caller(admission), Caller(admission, calls=1)
    assert admission.try_enter(busy)
    admission.watch(leaving)
    admission.watch(other)
    admission.leave()
    admission.remove(leaving)
    assert other.answer()


def test_a_caller_that_does_not_answer_loses_its_offer_to_the_next() -> None:
    """Its process may be stopped: nothing else would get the place until its link is found to be broken."""
    looks = Looks()
    admission = Admission(1, looks.later)
    busy, stopped, other = Caller(admission), Caller(admission, calls=1), Caller(admission, calls=1)
    assert admission.try_enter(busy)
    admission.watch(stopped)
    admission.watch(other)
    admission.leave()
    looks.pass_time()
    assert (stopped.offers, other.offers) == (1, 0), "it has had less than the whole time"
    looks.pass_time()
    assert other.offers == 1
    assert other.answer()
    assert not stopped.answer(), "it comes back too late, like any call that finds no place"
    admission.load_for(stopped)  # with the rejection
    admission.leave()
    stopped.calls = 1
    assert stopped.answer()


def test_a_caller_that_answers_each_offer_keeps_the_next_one() -> None:
    """It always has an open offer when the admission looks at them, but another one each time."""
    looks = Looks()
    admission = Admission(1, looks.later)
    caller = Caller(admission, calls=5)
    assert admission.try_enter(Caller(admission))
    for _ in range(5):
        admission.watch(caller)
        admission.leave()
        looks.pass_time()
        assert caller.answer()
    assert caller.offers == 0


def test_nothing_is_looked_at_while_no_offer_is_open() -> None:
    looks = Looks()
    admission = Admission(1, looks.later)
    caller = Caller(admission, calls=1)
    assert admission.try_enter(Caller(admission))
    admission.leave()
    assert not looks.due
    assert admission.try_enter(Caller(admission))
    admission.watch(caller)
    admission.leave()
    assert caller.answer()
    looks.pass_time()
    assert not looks.due


def test_a_caller_that_wrongly_concludes_full_gets_the_load_immediately() -> None:
    admission = admission_of(2)
    caller = Caller(admission)
    admission.watch(caller)
    assert (caller.reported, caller.offers) == (0, 0)


def test_an_end_that_frees_no_place_under_a_lowered_limit_is_not_offered() -> None:
    admission = admission_of(3)
    caller = Caller(admission)
    for _ in range(3):
        assert admission.try_enter(Caller(admission))
    admission.set_limit(2, [caller])
    assert caller.pushes == 1
    admission.leave()
    assert caller.offers == 0, "two are left, as many as may be"
    admission.leave()
    assert (caller.offers, caller.reported) == (1, 1)


def test_a_closed_admission_refuses_and_counts_the_refusals() -> None:
    admission = Admission(5)
    admission.close()
    assert not admission.try_enter(Caller(admission))
    assert admission.rejected == 1


def test_idle_comes_with_the_last_call() -> None:
    async def scenario() -> None:
        admission = Admission(5)
        assert admission.try_enter(Caller(admission))
        assert admission.try_enter(Caller(admission))
        waiting = asyncio.create_task(admission.idle())
        await asyncio.sleep(0)
        admission.leave()
        await asyncio.sleep(0)
        assert not waiting.done()
        admission.leave()
        async with asyncio.timeout(30):
            await waiting

    asyncio.run(scenario())


def test_all_who_wait_for_idle_hear_of_it() -> None:
    async def scenario() -> None:
        admission = Admission(5)
        assert admission.try_enter(Caller(admission))
        waiting = [asyncio.create_task(admission.idle()) for _ in range(2)]
        await asyncio.sleep(0)
        admission.leave()
        async with asyncio.timeout(30):
            await asyncio.gather(*waiting)

    asyncio.run(scenario())
