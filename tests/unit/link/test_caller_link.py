"""The caller's end of a link as a conversation without a socket: frames in, frames and events out."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.link.link_phases import CallerPhase
from mesh.link.outgoing_call import DONE, CallRequest, OutgoingCall
from mesh.link.parts import MalformedFrameError
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE_BUFFERS, Payload, raw
from mesh.wire.request_context import RequestContext
from tests.unit.link.link_script import LinkScript

LARGE = 2_000_000
"""Bytes of a request that leaves in several parts."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
"""On a loop: the writer of a link writes at the end of a turn."""


def ready(room: int = 10**9) -> LinkScript:
    script = LinkScript(room)
    script.replica_says(frames.pack_welcome(0))
    assert script.heard == ["ready"]
    return script


async def test_a_welcome_makes_the_link_ready_and_says_how_busy_the_replica_is() -> None:
    script = LinkScript()
    assert not script.link.is_usable
    script.replica_says(frames.pack_welcome(3))
    assert (script.heard, script.link.others_ongoing, script.link.is_usable) == (["ready"], 3, True)


async def test_a_second_welcome_is_the_fault_of_the_replica() -> None:
    script = ready()
    with pytest.raises(MalformedFrameError, match="WELCOME while READY"):
        script.replica_says(frames.pack_welcome(0))


async def test_a_call_is_on_the_link_until_its_result() -> None:
    script = ready()
    call = script.call()
    assert script.written == [("open", call.call_id)]
    script.link.cancel(call, CancelReason.CLIENT)
    assert script.written == [("cancel", call.call_id)]
    assert (script.link.ongoing, script.link.is_idle) == (1, False)
    script.replica_says(frames.pack_result(call.call_id, Outcome(payload=raw(b"x")), 3))
    assert script.heard == [("result", call, 0)]
    assert (script.link.ongoing, script.link.others_ongoing, script.link.is_idle) == (0, 3, True)


async def test_what_comes_for_calls_that_are_not_there_is_ignored() -> None:
    script = ready()
    late = 10**9
    script.replica_says(
        frames.pack_result(late, Outcome(payload=raw(b"x")), 3),
        frames.pack_reject(late, 3, is_draining=True),
        frames.pack_item(late, raw(b"x")),
        frames.pack_credit(late, 3),
    )
    assert (script.heard, script.link.phase) == ([], CallerPhase.READY)


async def test_items_and_credits_reach_the_sink_of_their_call() -> None:
    script = ready()
    call = script.call()
    script.replica_says(frames.pack_credit(call.call_id, 2), frames.pack_item(call.call_id, raw(b"one")))
    assert (script.heard, call.request_credit) == (["credit", ("item", b"one")], 2)


async def test_a_break_says_which_calls_had_not_left() -> None:
    """A large request counts as sent with its last part, a small one as soon as its frame is written."""
    script = ready(room=2)
    first, large = script.call(), script.call(LARGE)
    assert script.written == [("open", first.call_id), ("part", large.call_id)]
    small, another = script.call(), script.call(LARGE)
    assert script.written == []
    script.link.end("it broke")
    assert script.heard == [("broken", "it broke", [large, small, another], [first])]
    assert script.link.is_idle


async def test_a_large_request_whose_parts_are_all_written_has_left() -> None:
    script = ready()
    large = script.call(LARGE)
    assert {kind for kind, _ in script.written} == {"part"}
    script.link.end("it broke")
    assert script.heard == [("broken", "it broke", [], [large])]


async def test_a_call_has_left_with_its_open_whatever_large_items_still_wait() -> None:
    """It runs at its replica, so it is neither taken back by a drain nor safe to send again after a break."""
    script = ready()
    call = script.call(LARGE)
    assert {kind for kind, _ in script.written} == {"part"}
    script.stream.room = 1
    script.link.send_item(call, raw(b"x" * LARGE))
    assert script.written == [("part", call.call_id)]
    script.replica_says(frames.pack_drain())
    assert script.heard == [("load", 0)]
    script.link.end("it broke")
    assert script.heard == [("broken", "it broke", [], [call])]


async def test_a_drain_takes_back_large_requests_and_is_acknowledged_behind_the_last_open() -> None:
    script = ready(room=1)
    large, small = script.call(LARGE), script.call()
    assert script.written == [("part", large.call_id)]
    script.replica_says(frames.pack_drain())
    assert script.heard == [("reject", large), ("load", 0)]
    assert (script.link.is_draining, script.link.is_usable) == (True, False)
    script.stream.room = 10
    assert script.written == [("open", small.call_id), ("cancel", large.call_id), ("drain", 0)]


async def test_a_replica_that_drains_says_so_with_a_rejection_too() -> None:
    script = ready()
    call = script.call()
    script.replica_says(frames.pack_reject(call.call_id, 5, is_draining=True))
    assert (script.heard, script.link.is_draining, script.link.ongoing) == ([("reject", call)], True, 0)


async def test_an_offered_place_that_no_call_takes_is_declined() -> None:
    script = ready()
    script.replica_says(frames.pack_load(4, offers_place=True))
    assert (script.heard, script.written) == ([("load", 4)], [("decline", 0)])


async def test_an_offered_place_that_a_call_takes_is_not_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ready()
    monkeypatch.setattr(script, "on_load", lambda link: script.call())
    script.replica_says(frames.pack_load(4, offers_place=True))
    assert [kind for kind, _ in script.written] == ["open"]


async def test_a_cancelled_request_that_has_not_left_is_cut_off() -> None:
    script = ready(room=1)
    large = script.call(LARGE)
    assert script.written == [("part", large.call_id)]
    script.link.cancel(large, CancelReason.CLIENT)
    script.stream.room = 10
    assert script.written == [("cancel", large.call_id)]
    assert script.link.ongoing == 1, "the replica ends it with a Result"


class Body(bytearray):
    """The bytes of a request, of which a test may see whether they are still in memory."""


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
async def test_a_cancelled_request_takes_no_memory_while_its_replica_has_not_answered(size: int) -> None:
    script = ready(room=1)
    body = Body(size)
    call = OutgoingCall(CallRequest("__call__", raw(memoryview(body)), RequestContext("id")), script)
    script.link.send(call)
    assert script.written
    is_there = weakref.ref(body)
    del body
    assert is_there() is not None, "it may be sent again"
    script.link.cancel(call, CancelReason.CLIENT)
    assert is_there() is None
    assert script.link.ongoing == 1


async def test_the_stored_arrays_of_a_cancelled_call_are_released_and_not_fetched() -> None:
    script = ready()
    call = script.call()
    call.state = DONE
    script.link.cancel(call, CancelReason.CLIENT)
    assert script.written == [("open", call.call_id), ("cancel", call.call_id)]
    stored = StoredObject(b"object", b"owner", b"status")
    result = Outcome(payload=Payload(PICKLE_BUFFERS, b"", (), stored))
    script.replica_says(frames.pack_result(call.call_id, result, 0))
    assert (script.heard, script.written) == ([("result", call, 0)], [("release", 0)])
    assert script.link.is_idle


async def test_a_link_that_has_ended_writes_nothing() -> None:
    script = ready()
    call = script.call()
    script.link.end("it broke")
    script.link.cancel(call, CancelReason.CLIENT)
    script.link.send_half_close(call)
    script.link.release(b"an object")
    assert script.written == [("open", call.call_id)], "what had been handed to the writer"


STEPS = st.sampled_from(["small", "large", "write", "result", "reject", "cancel", "drain"])


@hypothesis_settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.tuples(STEPS, st.integers(0, 9), st.integers(0, 4)), max_size=40))
def test_every_call_comes_back_exactly_once(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is sent, written, answered and cancelled before the link breaks."""

    async def scenario() -> None:
        script = ready(room=1)
        calls, came_back = [], []
        for step, which, room in steps:
            match step:
                case "small" | "large" if script.link.is_usable:
                    calls.append(script.call(5 if step == "small" else LARGE))
                case "write":
                    script.stream.room = room
                    assert script.written is not None
                case "drain" if script.link.is_usable:
                    script.replica_says(frames.pack_drain())
                case _ if calls:
                    act(script, step, calls[which % len(calls)])
            came_back += [event[1] for event in script.heard if event[0] in ("result", "reject")]
        held = script.link.ongoing
        script.link.end("it broke")
        ((_, _, unsent, sent),) = script.heard
        assert len(unsent) + len(sent) == held
        assert sorted(map(id, [*came_back, *unsent, *sent])) == sorted(map(id, calls))

    asyncio.run(scenario())


def act(script: LinkScript, step: str, call: Any) -> None:
    match step:
        case "result":
            script.replica_says(frames.pack_result(call.call_id, Outcome(payload=raw(b"x")), 1))
        case "reject":
            script.replica_says(frames.pack_reject(call.call_id, 1, is_draining=False))
        case "cancel":
            script.link.cancel(call, CancelReason.CLIENT)
