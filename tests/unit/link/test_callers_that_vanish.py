"""A call gives its place back at its deadline, and when its caller vanishes without closing the connection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes import small_mesh
from tests.unit.fakes.raw_peer import Peer, Service, converse, hello, open_frame, replica_of
from tests.unit.fakes.small_mesh import until, until_async

pytestmark = pytest.mark.timeout(60)

CALLER = """
import asyncio, sys
from tests.unit.fakes.raw_peer import hello_to, open_frame
from mesh.link.link_stream import LINK_METHOD
from mesh.wire.endpoints import open_channel

async def main():
    async with open_channel(sys.argv[1]) as channel:
        stream = channel.stream_stream(LINK_METHOD)()
        await stream.write(hello_to(replica_id=sys.argv[2]))
        await stream.read()
        await stream.write(open_frame(1, "hang"))
        await stream.write(open_frame(2, "tokens", streams_response=True))
        print("sent", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Tokens(Service):
    """Has a method that waits for credit that no one will give."""

    def tokens(self) -> Iterator[int]:
        self.started += 1
        try:
            while True:
                yield 1
        finally:
            self.cancelled += 1


def open_with_deadline(call_id: int, method: str, seconds: float, **options: Any) -> bytes:
    return open_frame(call_id, method, deadline_at_s=time.monotonic() + seconds, **options)


@pytest.mark.parametrize(("method", "options"), [("hang", {}), ("tokens", {"streams_response": True})])
def test_a_call_ends_at_its_deadline_although_its_caller_says_nothing(method: str, options: dict[str, Any]) -> None:
    service = Tokens()
    with replica_of(service, limit=1) as replica:

        async def talk(peer: Peer) -> Any:
            await peer.write(hello(replica), open_with_deadline(1, method, 0.05, **options))
            await until_async(lambda: service.cancelled and not replica.ongoing, "the place")
            while True:
                for frame in await peer.read():
                    if frame.WhichOneof("kind") == "result":
                        return frame.result.status.code

        assert converse(replica, talk) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert service.started == 1


def test_the_calls_of_a_process_that_stands_still_give_their_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a host that vanished: they have no deadline, and the connection stays open."""
    monkeypatch.setattr(small_mesh, "LINK_UPKEEP", UpkeepPolicy(keepalive_after_s=0.1, keepalive_timeout_s=0.1))
    service = Tokens()
    with replica_of(service) as replica:
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, replica.info.address, replica.replica_id], stdout=subprocess.PIPE
        )
        try:
            assert caller.stdout is not None
            assert caller.stdout.readline()
            until(lambda: service.started == 2, "both calls to run")
            os.kill(caller.pid, signal.SIGSTOP)
            until(lambda: replica.is_idle, "their places")
            until(lambda: service.cancelled == 2, "their user code to end")
            assert caller.poll() is None
        finally:
            caller.kill()
            caller.wait()
            assert caller.stdout is not None
            caller.stdout.close()
