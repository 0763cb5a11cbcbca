"""The replica's end of a link as a conversation without a socket: frames in, calls of the service and frames out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mesh.cluster.ray_objects import StoredObject
from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.link.link_phases import CalleePhase
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import MalformedFrameError
from mesh.link.replica_facts import ReplicaFacts
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE_BUFFERS, Payload, raw
from mesh.wire.request_context import RequestContext
from tests.unit.link.link_script import CalleeScript

LARGE = 1_500_000
"""Bytes of a request that comes in several parts."""
RESULT = Outcome(payload=raw(b"answer"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
"""On a loop: the writer of a link writes at the end of a turn."""


async def test_a_caller_is_welcomed() -> None:
    script = CalleeScript()
    script.link.start(ReplicaFacts())
    assert (script.written, script.link.phase) == ([("welcome", 0)], CalleePhase.OPEN)


async def test_a_caller_that_comes_while_the_replica_drains_hears_of_it_before_it_can_send_a_call() -> None:
    script = CalleeScript()
    script.admission.close()
    script.link.start(ReplicaFacts())
    assert script.written == [("drain", 0), ("welcome", 0)]


async def test_a_call_holds_its_place_until_its_result() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(7))
    (call,) = script.started
    assert (call.call_id, call.request.method, script.admission.ongoing) == (7, "__call__", 1)
    script.link.finish(call, RESULT)
    assert (script.written, script.admission.ongoing) == ([("result", 7)], 0)


async def test_a_call_without_a_place_is_rejected_and_not_started() -> None:
    script = CalleeScript(limit=1)
    script.caller_says(script.opened(1), script.opened(2))
    assert ([call.call_id for call in script.started], script.written) == ([1], [("reject", 2)])


async def test_what_comes_for_a_call_reaches_it_in_order() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1, streams_request=True))
    script.caller_says(frames.pack_item(1, raw(b"a")), frames.pack_credit(1, 3), frames.pack_half_close(1))
    script.caller_says(frames.pack_cancel(1, CancelReason.CLIENT))
    assert script.seen == [("item", b"a"), ("credit", 3), "half close", ("cancel", CancelReason.CLIENT)]


async def test_what_comes_for_a_call_that_has_ended_is_ignored() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1))
    script.link.finish(script.started[0], RESULT)
    script.caller_says(frames.pack_item(1, raw(b"a")), frames.pack_credit(1, 3), frames.pack_half_close(1))
    assert (script.seen, script.ends) == ([], [])


async def test_a_cancel_of_a_call_that_is_not_there_is_answered() -> None:
    """Its Open may have been cut off: the caller waits for an end."""
    script = CalleeScript()
    script.caller_says(frames.pack_cancel(9, CancelReason.CLIENT))
    assert script.written == [("result", 9)]


async def test_the_end_of_a_link_cancels_its_calls_which_hold_their_places_until_user_code_has_ended() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1), script.opened(2))
    script.link.end(CancelReason.LINK_BROKEN, 3, "wrong")
    assert script.seen == [("cancel", CancelReason.LINK_BROKEN)] * 2
    assert (script.ends, script.admission.ongoing) == ([(3, "wrong")], 2)
    for call in script.started:
        script.link.finish(call, RESULT)
    assert (script.written, script.admission.ongoing) == ([], 0)


async def test_what_was_sent_is_written_before_the_stream_ends_and_that_ends_once() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1))
    script.link.finish(script.started[0], RESULT)
    script.link.end(CancelReason.DRAIN)
    script.link.end(CancelReason.LINK_BROKEN, 13, "late")
    script.link.push_load()
    assert (script.written, script.ends) == ([("result", 1)], [(0, "")])


async def test_a_drain_is_over_when_the_caller_has_acknowledged_it() -> None:
    script = CalleeScript()
    script.link.drain()
    acknowledged = asyncio.ensure_future(script.link.wait_drain_acknowledged())
    await asyncio.sleep(0)
    assert not acknowledged.done()
    script.caller_says(frames.pack_drain())
    await asyncio.wait_for(acknowledged, 30)
    assert script.link.phase is CalleePhase.LEFT


async def test_an_acknowledgement_of_no_drain_is_the_fault_of_the_caller() -> None:
    script = CalleeScript()
    with pytest.raises(MalformedFrameError, match="ACKNOWLEDGE while OPEN"):
        script.caller_says(frames.pack_drain())


@pytest.mark.parametrize("call_id", [0, 1])
async def test_the_id_of_another_call_is_the_fault_of_the_caller(call_id: int) -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1))
    with pytest.raises(MalformedFrameError, match="is in use"):
        script.caller_says(script.opened(call_id))


@pytest.mark.parametrize("packed", [frames.pack_welcome(0), frames.pack_result(1, RESULT, 0)])
async def test_frames_of_a_replica_are_the_fault_of_the_caller(packed: Any) -> None:
    script = CalleeScript()
    with pytest.raises(MalformedFrameError, match="from a caller"):
        script.caller_says(packed)


async def test_a_large_call_without_a_place_is_rejected_with_its_last_part() -> None:
    script = CalleeScript(limit=1)
    script.caller_says(script.opened(1))
    *firsts, last = parts_of(2)
    for part in firsts:
        script.caller_says(part)
    assert script.written == []
    script.caller_says(last)
    assert script.written == [("reject", 2)]


async def test_a_large_item_that_comes_too_late_does_not_send_its_call_back() -> None:
    """The call has ended, its large result is on its way, and the replica is full: the caller hears of the result."""
    script = CalleeScript(limit=1)
    script.caller_says(script.opened(1, streams_request=True))
    script.link.finish(script.started[0], Outcome(payload=raw(b"x" * LARGE)))
    script.caller_says(script.opened(2))
    for part in parts_of_item(1):
        script.caller_says(part)
    assert [each for each in script.written if each[1] == 1][-1] == ("reject", 1), "behind all parts of the result"


async def test_a_large_call_is_started_with_its_last_part() -> None:
    script = CalleeScript()
    *firsts, last = parts_of(2)
    for part in firsts:
        script.caller_says(part)
    assert script.started == []
    script.caller_says(last)
    (call,) = script.started
    assert call.request.payload is not None
    assert bytes(call.request.payload.data) == b"x" * LARGE


async def test_a_stored_result_is_flushed_when_the_caller_has_fetched_it() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1))
    stored = StoredObject(b"object", b"owner", b"status")
    script.link.finish(script.started[0], Outcome(payload=Payload(PICKLE_BUFFERS, b"", (), stored)))
    assert script.written == [("result", 1)]
    flushed = asyncio.ensure_future(script.link.flush())
    await asyncio.sleep(0)
    assert not flushed.done()
    script.caller_says(frames.pack_release(b"object"))
    await asyncio.wait_for(flushed, 30)
    assert not script.ends


async def test_a_stored_result_is_dropped_with_the_frame_that_names_it() -> None:
    """A large pickle with stored buffers, cut off by a cancel: the caller never hears of the buffers."""
    script = CalleeScript()
    script.caller_says(script.opened(1), script.opened(2))
    for call, name in zip(script.started, (b"first", b"second"), strict=True):
        stored = StoredObject(name, b"owner", b"status")
        script.link.finish(call, Outcome(payload=Payload(PICKLE_BUFFERS, b"x" * LARGE, (), stored)))
    script.caller_says(frames.pack_cancel(1, CancelReason.CLIENT))
    assert list(script.link._stored) == [b"second"]
    script.caller_says(frames.pack_cancel(2, CancelReason.CLIENT))
    await asyncio.wait_for(script.link.flush(), 30)
    assert {call_id for kind, call_id in script.written if kind == "result"} == {1, 2}


async def test_a_call_that_ends_before_its_deadline_leaves_no_timer() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1, deadline_at_s=time.monotonic() + 60))
    (call,) = script.started
    assert call.timer is not None
    script.link.finish(call, RESULT)
    assert call.timer.cancelled()


async def test_a_deadline_in_a_thousand_years_gets_no_timer() -> None:
    script = CalleeScript()
    script.caller_says(script.opened(1, deadline_at_s=time.monotonic() + 3e10))
    assert [call.timer for call in script.started] == [None]


def parts_of(call_id: int) -> list[bytes]:
    """The messages of a large call."""
    request = CallRequest("__call__", raw(b"x" * LARGE), RequestContext("id"))
    return cut(frames.pack_open(call_id, request))


def parts_of_item(call_id: int) -> list[bytes]:
    """The messages of a large item."""
    return cut(frames.pack_item(call_id, raw(b"x" * LARGE)))


def cut(message: frames.Packed) -> list[bytes]:
    assert isinstance(message, frames.LargeMessage)
    parts = []
    while not message.is_taken:
        parts.append(b"".join(message.take_part(LARGE // 3)))
    return parts
