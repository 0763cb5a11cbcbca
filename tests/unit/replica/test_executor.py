"""mesh.replica.executor: whatever becomes of a call on its way into user code, it ends and gives its place back."""

from typing import Any

import pytest

from mesh.cluster.ray_objects import StoredObject
from mesh.link.callee_link import IncomingCall
from mesh.link.outgoing_call import CallRequest
from mesh.replica import executor
from mesh.wire.outcome import Outcome
from mesh.wire.payload import PICKLE_BUFFERS, Payload
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallReplica, do_on_io, until


class OutcomesOnly:
    """Takes the place of a link."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def finish(self, call: IncomingCall, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Store:
    def price(self, item: str) -> int:
        return len(item)


@pytest.mark.parametrize("stored", [None, StoredObject(b"id", b"owner", b"status")])
def test_a_call_for_which_no_thread_is_left_ends(stored: StoredObject | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "load_buffers", lambda stored: [])
    replica, link = SmallReplica(Store()), OutcomesOnly()
    any_link: Any = link
    request = CallRequest("price", Payload(PICKLE_BUFFERS, b"", stored=stored), RequestContext("id"))
    try:
        replica.user_loop.threads.shutdown()
        do_on_io(replica.executor.start, IncomingCall(any_link, 1, request, 0))
        until(lambda: link.outcomes, "the outcome")
        assert "shutdown" in link.outcomes[0].message
    finally:
        replica.close()
