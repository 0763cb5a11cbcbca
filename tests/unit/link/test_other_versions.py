"""Links between processes of two versions: an earlier one, which drops what it does not know, and a later one.

All frames of both directions are read and written again as that version does it, over real links.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from mesh.context import current_request
from mesh.link import callee_link, caller_link
from mesh.link.small_frames import FrameReceiver, receive_frames
from mesh.v1 import replica_pb2
from tests.released_mesh import RELEASES, Release
from tests.unit.fakes.raw_peer import DEADLINE_S, Service
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, until

pytestmark = pytest.mark.timeout(60)
Rewrite = Callable[[replica_pb2.Frames], replica_pb2.Frames]
_UNKNOWN = b"\xf8\x7f\x01"
"""A field of a later version: number 2047, with the value 1."""


class Calls(Service):
    async def count(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each

    async def fail(self) -> None:
        raise LookupError("sold out")

    async def request_id(self) -> str:
        request = current_request()
        return request.request_id if request is not None else ""


def earlier(release: Release, frames: replica_pb2.Frames) -> replica_pb2.Frames:
    passed: replica_pb2.Frames = release.passed_on(frames)
    return passed


def later(frames: replica_pb2.Frames) -> replica_pb2.Frames:
    """With a field that is not known yet in every message."""
    _extend(frames)
    return frames


def _extend(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for child in value if field.is_repeated else (value,):
                _extend(child)
    if not isinstance(message, replica_pb2.Frames):  # only frames may be in it
        message.MergeFromString(_UNKNOWN)


PEERS = [
    *(pytest.param(functools.partial(earlier, each), id=f"as of {each.name}") for each in RELEASES),
    pytest.param(later, id="with new fields"),
]


@pytest.fixture(params=PEERS)
def mesh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallMesh]:
    rewrite: Rewrite = request.param
    kinds: set[str | None] = set()

    def receive(message: bytes, receiver: FrameReceiver) -> None:
        frames = replica_pb2.Frames.FromString(message)
        kinds.update(frame.WhichOneof("kind") for frame in frames.frames)
        receive_frames(rewrite(frames).SerializeToString(), receiver)

    for module in (caller_link, callee_link):
        monkeypatch.setattr(module, "receive_frames", receive)
    with mesh_of(Calls(), Calls()) as mesh:
        yield mesh
        mesh.assert_idle()
    assert kinds >= {"welcome", "open", "result"}, "all went through the other version"


def result(mesh: SmallMesh, method: str, *arguments: Any, **options: Any) -> Any:
    return mesh.handle(method, **options).remote(*arguments).result(timeout_s=DEADLINE_S)


@pytest.mark.parametrize("value", ["x", "x" * 100_000, "x" * 3_000_000], ids=["small", "large", "in parts"])
def test_arguments_and_results_arrive(mesh: SmallMesh, value: str) -> None:
    assert result(mesh, "__call__", value) == value
    assert result(mesh, "__call__", 1) == 1, "a large one goes in parts, which are not frames"


def test_streams_arrive_in_order(mesh: SmallMesh) -> None:
    assert list(mesh.handle("count", stream=True).remote(1000)) == list(range(1000))
    assert result(mesh, "__call__", 1) == 1


def test_errors_keep_their_type(mesh: SmallMesh) -> None:
    with pytest.raises(LookupError, match="sold out"):
        result(mesh, "fail")
    assert result(mesh, "__call__", 1) == 1


def test_the_context_of_a_request_arrives(mesh: SmallMesh) -> None:
    assert result(mesh, "request_id") != ""


def test_a_cancel_arrives(mesh: SmallMesh) -> None:
    call = mesh.handle("hang").remote()
    services = [replica.target for replica in mesh.replicas]
    until(lambda: any(each.started for each in services), "the call to run")  # type: ignore[attr-defined]
    call.cancel()
    until(lambda: any(each.cancelled for each in services), "its end")  # type: ignore[attr-defined]
    assert result(mesh, "__call__", 1) == 1


def test_a_drain_arrives(mesh: SmallMesh) -> None:
    do_on_io(mesh.replicas[0].servicer.drain)
    assert [result(mesh, "__call__", number) for number in range(50)] == list(range(50))
