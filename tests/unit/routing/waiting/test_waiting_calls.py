"""The calls that wait: their order, their patience with models, and that an event costs the same in a large cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.routing.choice.locality import Locality
from mesh.routing.waiting.fair_queue import TURN_CALLS
from mesh.settings import settings as mesh_settings
from mesh.wire.request_context import RequestContext
from tests.unit.routing.waiting.waiting_world import CountingEndpoint, World

DELAY_S = mesh_settings().routing.multiplex_spill_delay_s


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


def test_a_session_returns_to_its_replica_and_leaves_it_only_while_it_is_full(patch: pytest.MonkeyPatch) -> None:
    """Of four replicas with two places each (item 206)."""
    world = World(patch, 4, limit=2)
    for _ in range(3):
        world.submit(session_id="s")
    home, again, elsewhere = (endpoint for endpoint, _ in world.sent)
    assert home is again
    assert elsewhere is not home
    world.end()
    world.submit(session_id="s")
    assert world.sent[-1][0] is home


@pytest.mark.parametrize("model_id", ["", "hot"])
def test_a_result_costs_the_same_with_a_thousand_replicas_as_with_ten(model_id: str) -> None:
    """While 500 calls wait: 31 ms per result with a thousand replicas, before."""
    costs = []
    for replicas in (10, 1000):
        with pytest.MonkeyPatch.context() as monkeypatch:
            world = World(monkeypatch, replicas)
            for endpoint in world.pool.endpoints:
                world.pool.announce(endpoint, "hot")
            for _ in range(replicas + 500):
                world.submit(model_id)
            assert len(world.calls) == 500
            CountingEndpoint.looks = 0
            for _ in range(5):
                world.end()
            assert len(world.calls) == 495
            costs.append(CountingEndpoint.looks)
    assert costs[0] == costs[1] <= 5 * 6


def test_a_call_that_waits_costs_no_look_at_the_replicas(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=1000)
    for _ in range(1001):
        world.submit()
    CountingEndpoint.looks = 0
    for _ in range(100):
        world.submit()
    assert CountingEndpoint.looks == 0


def test_many_calls_that_wait_for_models_share_one_timer(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=1)
    world.pool.announce(world.pool.endpoints[0], "a", "b")
    for number in range(100):
        world.submit("ab"[number % 2])
    assert len(world.timers) == 1


def test_a_free_place_goes_to_the_oldest_call_that_the_replica_can_serve(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=2)
    one, other = world.pool.endpoints
    world.pool.announce(one, "a")
    world.pool.announce(other, "b")
    world.submit("a")
    world.submit("b")
    for_b, for_a, plain = world.submit("b"), world.submit("a"), world.submit()
    assert world.end() is one
    assert world.sent[-1] == (one, for_a)
    assert world.end() is other
    assert world.sent[-1] == (other, for_b)
    world.end()
    assert world.sent[-1] == (one, plain)


def test_a_call_passes_those_that_wait_for_their_model(patch: pytest.MonkeyPatch) -> None:
    """A newer call of another kind is not held up (item 179)."""
    world = World(patch, replicas=2)
    holder, free = world.pool.endpoints
    world.pool.announce(holder, "hot")
    world.submit("hot")
    waiting, plain = world.submit("hot"), world.submit()
    assert waiting in world.calls
    assert world.sent[-1] == (free, plain)


def test_a_model_in_demand_spreads_after_a_while(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=2)
    holder, free = world.pool.endpoints
    world.pool.announce(holder, "hot")
    world.submit("hot")
    waiting = world.submit("hot")
    world.pass_time(DELAY_S * 0.9)
    assert waiting in world.calls
    world.pass_time(DELAY_S * 0.2)
    assert world.sent[-1] == (free, waiting)
    assert not world.timers


def test_a_call_whose_model_is_lost_while_it_waits_goes_elsewhere(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=2)
    holder, free = world.pool.endpoints
    world.pool.announce(holder, "hot")
    world.submit("hot")
    waiting = world.submit("hot")
    world.pool._models.reset([free])
    world.calls.dispatch()
    assert world.sent[-1] == (free, waiting)


def test_calls_for_a_model_that_its_last_replica_drops_wait_for_any_place_in_their_order(
    patch: pytest.MonkeyPatch,
) -> None:
    world = World(patch, replicas=1)
    (replica,) = world.pool.endpoints
    world.pool.announce(replica, "a")
    world.submit("a")
    first, plain, last = world.submit("a"), world.submit(), world.submit("a")
    world.calls.release_unheld(world.pool.announce(replica))
    for _ in range(3):
        world.end()
    assert [call for _, call in world.sent[1:]] == [first, plain, last]
    assert world.now_s == 100.0


def test_a_call_that_comes_back_has_its_old_place(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=1)
    world.pool.announce(world.pool.endpoints[0], "hot")
    first, second = world.submit("hot"), world.submit("hot")
    world.running.clear()
    assert world.pool.endpoints[0].link is not None
    world.pool.endpoints[0].link._calls.clear()
    world.calls.restore(first)
    assert world.calls.drain() == [first, second]


@pytest.mark.parametrize("targets", [None, (frozenset("0"),)])
@pytest.mark.parametrize("busy", [1, 20])
def test_a_connection_with_one_call_waits_for_one_turn_of_each_other_one(
    patch: pytest.MonkeyPatch, busy: int, targets: tuple[frozenset[str]] | None
) -> None:
    """And not for the hundred that each has sent before; also where a request router has chosen the replica."""
    world = World(patch, replicas=1)
    for number in range(busy * 100):
        world.submit(source=f"busy {number % busy}", targets=targets)
    honest = world.submit(source="honest", targets=targets)
    rounds = 0
    while honest in world.calls:
        world.end()
        rounds += 1
    assert rounds <= busy * TURN_CALLS + 1


def test_calls_of_a_lost_model_cost_no_other_connection_its_turn(patch: pytest.MonkeyPatch) -> None:
    world = World(patch, replicas=1)
    (replica,) = world.pool.endpoints
    world.pool.announce(replica, "a")
    for _ in range(1 + TURN_CALLS):
        world.submit(source="busy")
    second, honest = world.submit(source="busy"), world.submit(source="honest")
    for _ in range(TURN_CALLS):
        world.end()
    of_model = world.submit("a", source="busy")
    world.calls.release_unheld(world.pool.announce(replica))
    for expected in (honest, second, of_model):
        world.end()
        assert world.sent[-1] == (replica, expected)


STEPS = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "end", "time", "remove", "announce"]), st.integers(0, 60)),
    max_size=60,
)


MODEL_LOST_WHILE_ITS_CALL_WAITS = [
    *(("submit", 0), ("submit", 0), ("announce", 1), ("submit", 22)),
    *(("end", 0), ("announce", 0), ("end", 0), ("submit", 52)),
]


@settings(deadline=None)
@example(MODEL_LOST_WHILE_ITS_CALL_WAITS, 1, 1)
@given(STEPS, st.integers(1, 4), st.integers(1, 2))
def test_no_call_waits_beside_a_free_place(steps: list[tuple[str, int]], replicas: int, limit: int) -> None:
    """Except for its model, and then not for long; calls without a model are sent in their order (items 158, 161)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, replicas, limit)
        waiting: list[OutgoingCall] = []
        for step, number in steps:
            match step:
                case "submit":
                    waiting.append(world.submit(("", "", "a", "b", "c")[number % 5]))
                case "end" if world.running:
                    world.end(number % len(world.running))
                case "time":
                    world.pass_time(DELAY_S * number / 30)
                case "remove" if waiting:
                    world.calls.remove(waiting[number % len(waiting)])
                case "announce":
                    endpoint = world.pool.endpoints[number % replicas]
                    world.calls.release_unheld(world.pool.announce(endpoint, *("abc"[: number % 4])))
                    world.calls.dispatch_to(endpoint)
            is_free = any(endpoint.load < endpoint.limit for endpoint in world.pool.endpoints)
            assert not (is_free and world.calls._common)
            assert all(map(world.pool.holders_of, world.calls._by_model))
            assert len(world.calls._for_models) == sum(map(len, world.calls._by_model.values()))
            assert all(world.calls._by_model.values())
            assert bool(world.timers) == (world.calls._timer is not None)
            assert world.timers or not world.calls._for_models
        plain = [call.call_id for _, call in world.sent if not call.request.context.multiplexed_model_id]
        assert plain == sorted(plain)
        world.pass_time(2 * DELAY_S)
        while world.running:
            world.end()
        assert not world.calls
        assert len(world.sent) == len(set(map(id, (call for _, call in world.sent))))


def test_a_call_with_a_model_ignores_locality(patch: pytest.MonkeyPatch) -> None:
    """It goes to the far replica that holds the model, or where the fewest models are (item 170)."""
    world = World(patch, replicas=3, limit=5)
    near, far, farthest = world.pool.endpoints
    world.pool.local_first = (Locality([near]), world.pool.all)
    world.pool.announce(far, "model")
    world.pool.announce(near, "other")
    assert world.calls.enter(local_call("model")) is far
    assert world.calls.enter(local_call("new")) is farthest
    assert world.calls.enter(local_call("")) is near


def test_a_call_is_placed_without_a_question_to_any_replica(patch: pytest.MonkeyPatch) -> None:
    """From what is known, at once: a link without a connection would not answer (item 160)."""
    world = World(patch, replicas=3, limit=5)
    assert world.calls.enter(local_call("")) in world.pool.endpoints


def local_call(model: str) -> OutgoingCall:
    context = RequestContext("id", multiplexed_model_id=model)
    return OutgoingCall(CallRequest("m", None, context, prefers_local=True), sink=None)  # type: ignore[arg-type]
