"""Peers that break the protocol: strangers are refused, malformed frames end their link and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio
import pytest

from mesh.exceptions import CancelReason
from mesh.link import frames
from mesh.routing.router import Router
from mesh.rpc.method_handlers import MethodHandlers
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire.payload import encode
from tests.unit.fakes.raw_peer import DEADLINE_S, Peer, Service, converse, hello, open_frame, replica_of
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, on_io, until

pytestmark = pytest.mark.timeout(60)


# ---- Strangers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": b"guessed"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"token": b""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"replica_id": "another"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"protocol_version": 99}, grpc.StatusCode.FAILED_PRECONDITION),
    ],
    ids=["wrong token", "no token", "wrong replica", "wrong protocol"],
)
def test_a_wrong_hello_is_refused_before_anything_else_is_read(changes: dict[str, Any], code: grpc.StatusCode) -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(hello(replica, **changes))
        return await peer.failure()

    with replica_of(Service()) as replica:
        assert converse(replica, talk)[0] is code
        assert not replica.servicer.links
        assert replica.ongoing == 0


@pytest.mark.parametrize("first", [b"", b"\xff garbage", open_frame(1)], ids=["empty", "garbage", "open"])
def test_a_peer_that_does_not_say_hello_is_refused(first: bytes) -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(first)
        return await peer.failure()

    with replica_of(Service()) as replica:
        assert converse(replica, talk)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert replica.ongoing == 0


# ---- Malformed frames ------------------------------------------------------------------------------------------------

_MISFIT_HEAD = replica_pb2.Frame(
    call_id=9, open=replica_pb2.Open(method="hang", payload=common_pb2.Payload(section_bytes=[5]))
).SerializeToString()
_MISFIT = replica_pb2.Part(total_bytes=len(_MISFIT_HEAD) + 3, head_bytes=len(_MISFIT_HEAD), data=_MISFIT_HEAD + b"abc")
_PART = replica_pb2.Part(total_bytes=2**40, head_bytes=10, data=b"x")


@pytest.mark.parametrize(
    "malformed",
    [
        b"\xff\xff garbage",
        b"\x0a\x05\x08\x01\x6a\xff\xff\xff",
        frames.pack_drain(),
        frames.pack(replica_pb2.Frame(call_id=5)),
        open_frame(0),
        open_frame(1),
        frames.pack(replica_pb2.Frame(call_id=9, part=_PART)),
        frames.pack(replica_pb2.Frame(call_id=9, part=_MISFIT)),
        frames.pack(replica_pb2.Frame(call_id=9, part=replica_pb2.Part(data=b"no beginning"))),
    ],
    ids=[
        "garbage",
        "cut off",
        "not a caller's",
        "of no kind",
        "id 0",
        "id in use",
        "too large",
        "sections that do not fit",
        "no beginning",
    ],
)
def test_malformed_frames_end_the_link_and_its_calls(malformed: bytes) -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(hello(replica), open_frame(1, "hang"))
        await peer.write(malformed)
        return await peer.failure()

    service = Service()
    with replica_of(service) as replica:
        code, details = converse(replica, talk)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("malformed frames")
        until(lambda: replica.is_idle, "the link's call to be gone")
        assert service.cancelled == service.started


def test_a_link_that_ends_before_its_welcome_has_left_has_a_status() -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(hello(replica) + b"\xff\xff garbage")
        return await peer.failure()

    with replica_of(Service()) as replica:
        assert converse(replica, talk)[0] is grpc.StatusCode.UNAUTHENTICATED


def test_frames_of_unknown_calls_are_ignored_and_their_cancels_answered() -> None:
    async def talk(peer: Peer) -> list[str | None]:
        await peer.write(hello(replica))
        item = frames.pack_item(77, encode(1))
        assert isinstance(item, bytes)
        await peer.write(item, frames.pack_half_close(77), frames.pack_credit(77, 5), frames.pack_release(b"none"))
        await peer.write(frames.pack_cancel(77, CancelReason.CLIENT), open_frame(1))
        kinds: list[str | None] = []
        while kinds.count("result") < 2:
            kinds += [frame.WhichOneof("kind") for frame in await peer.read()]
        return kinds

    with replica_of(Service()) as replica:
        assert converse(replica, talk) == ["welcome", "result", "result"]


def test_a_large_item_that_its_call_cancelled_leaves_no_buffer() -> None:
    async def talk(peer: Peer) -> int:
        await peer.write(hello(replica), open_frame(1, "hang"))
        part = replica_pb2.Part(total_bytes=1_000_000, head_bytes=10, data=b"x" * 100)
        await peer.write(
            frames.pack(replica_pb2.Frame(call_id=1, part=part)), frames.pack_cancel(1, CancelReason.CLIENT)
        )
        kinds: list[str | None] = []
        while "result" not in kinds:
            kinds += [frame.WhichOneof("kind") for frame in await peer.read()]
        (link,) = replica.servicer.links
        return link.unfinished

    with replica_of(Service()) as replica:
        assert converse(replica, talk) == 0


def test_users_code_that_fails_to_be_looked_up_fails_its_call_only() -> None:
    with mesh_of(Service()) as mesh:
        with pytest.raises(ValueError, match="this property is broken"):
            mesh.handle("broken").remote().result(timeout_s=DEADLINE_S)
        assert mesh.handle().remote(1).result(timeout_s=DEADLINE_S) == 1
        mesh.assert_idle()


# ---- A replica that misbehaves ---------------------------------------------------------------------------------------


class RawServer:
    """A replica that answers with whatever bytes the test has."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.links = 0
        handler: Any = grpc.stream_stream_rpc_method_handler(self.Link)
        self.handlers = MethodHandlers()
        self.handlers.add_registered_method_handlers("mesh.v1.Replica", {"Link": handler})

    async def Link(self, requests: object, context: Any) -> None:
        del requests
        await context.read()
        self.links += 1
        for answer in self.answers:
            await context.write(answer)


@pytest.mark.parametrize(
    "answers",
    [
        (b"\xff garbage",),
        (frames.pack_welcome(0), b"\xff\xff garbage"),
        (frames.pack_welcome(0), frames.pack_cancel(1, CancelReason.CLIENT)),
        (frames.pack_welcome(0), frames.pack_welcome(0)),
    ],
    ids=["garbage first", "garbage later", "not a replica's", "welcome twice"],
)
def test_a_caller_survives_a_replica_that_sends_nonsense_and_connects_again(answers: tuple[bytes, ...]) -> None:
    server = RawServer(*answers)
    with replica_of(Service()) as replica:
        replica.kill()
        replica.accept = server.handlers.accept
        on_io(replica._start())
        mesh = SmallMesh((replica,))
        until(lambda: server.links >= 2, "a second attempt")
        assert (mesh.router.has_replicas, mesh.router.ongoing) == (True, 0)
        mesh.close()


def test_a_second_welcome_is_the_replicas_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Its calls fail with that as the reason, and nothing is logged as a defect of ours."""
    server = RawServer(frames.pack_welcome(0), frames.pack_welcome(0))
    reasons: list[str] = []
    with replica_of(Service()) as replica, patch.object(Router, "on_broken", _keeping(reasons, Router.on_broken)):
        replica.kill()
        replica.accept = server.handlers.accept
        on_io(replica._start())
        mesh = SmallMesh((replica,))
        until(lambda: reasons, "the end of the link")
        mesh.close()
    assert reasons[0] == "the replica sent malformed frames: WELCOME while READY"
    assert "failed" not in caplog.text


def _keeping(reasons: list[str], on_broken: Callable[..., None]) -> Callable[..., None]:
    def keep(router: Router, link: Any, reason: str, unsent: Any, sent: Any) -> None:
        reasons.append(reason)
        on_broken(router, link, reason, unsent, sent)

    return keep
