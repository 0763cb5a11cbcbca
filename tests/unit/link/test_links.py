"""Both ends of a link over a real socket: who is let in, what is malformed, and what a break or a drain means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio
import pytest

from mesh.exceptions import CancelReason, MeshException, ReplicaUnavailableError
from mesh.link import frames
from mesh.link.callee_link import CalleeLink
from mesh.link.caller_link import LINK_METHOD
from mesh.link.outgoing_call import CallRequest
from mesh.link.parts import MalformedFrameError
from mesh.routing.router import Router
from mesh.v1 import common_pb2, replica_pb2
from mesh.wire.endpoints import open_channel
from mesh.wire.payload import encode
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import TOKEN, SmallMesh, SmallReplica, do_on_io, mesh_of, on_io, until

DEADLINE_S = 10.0
pytestmark = pytest.mark.timeout(60)


class Service:
    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0

    async def __call__(self, value: Any = None) -> Any:
        return value

    async def hang(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @property
    def broken(self) -> None:
        raise ValueError("this property is broken")


@contextmanager
def replica_of(target: object, limit: int = 10) -> Iterator[SmallReplica]:
    with patch("mesh.wire.mesh_token.mesh_token", lambda: TOKEN):
        replica = SmallReplica(target, limit)
        try:
            yield replica
        finally:
            replica.close()


class Peer:
    """A caller that writes what it likes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, *messages: bytes) -> None:
        for message in messages:
            await self._stream.write(message)

    async def read(self) -> list[replica_pb2.Frame]:
        data = await self._stream.read()
        return list(replica_pb2.Frames.FromString(data).frames) if isinstance(data, bytes) else []

    async def failure(self) -> tuple[grpc.StatusCode, str]:
        try:
            while await self.read():
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self._stream.code(), await self._stream.details()


def converse(replica: SmallReplica, talk: Callable[[Peer], Any]) -> Any:
    async def run() -> Any:
        async with asyncio.timeout(DEADLINE_S), open_channel(replica.info.address) as channel:
            stream = channel.stream_stream(LINK_METHOD)()
            try:
                return await talk(Peer(stream))
            finally:
                stream.cancel()

    return on_io(run())


def hello(replica: SmallReplica, **changes: Any) -> bytes:
    fields = {"protocol_version": frames.PROTOCOL_VERSION, "token": TOKEN}
    message = replica_pb2.Hello(**{**fields, "replica_id": replica.replica_id, **changes})
    return frames.pack(replica_pb2.Frame(hello=message))


def open_frame(call_id: int, method: str = "__call__", **options: Any) -> bytes:
    packed = frames.pack_open(call_id, CallRequest(method, encode(((), {})), RequestContext("id"), **options))
    assert isinstance(packed, bytes)
    return packed


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
def test_a_wrong_hello_is_refused_before_anything_is_looked_at(changes: dict[str, Any], code: grpc.StatusCode) -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(hello(replica, **changes))
        return await peer.failure()

    with replica_of(Service()) as replica:
        assert converse(replica, talk)[0] is code
        assert not replica.servicer.links
        assert replica.ongoing == 0


@pytest.mark.parametrize("first", [b"", b"\xff garbage", open_frame(1)], ids=["empty", "garbage", "open"])
def test_whoever_does_not_say_hello_is_refused(first: bytes) -> None:
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


def test_a_link_that_ends_while_its_welcome_is_being_written_has_a_status() -> None:
    async def talk(peer: Peer) -> Any:
        await peer.write(hello(replica))
        return await peer.failure()

    class Impatient(CalleeLink):
        async def _read(self) -> None:
            raise MalformedFrameError("immediately")

    with patch("mesh.link.callee_link.CalleeLink", Impatient), replica_of(Service()) as replica:
        statuses = {converse(replica, talk)[0] for _ in range(20)}
        assert statuses == {grpc.StatusCode.INVALID_ARGUMENT}


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
        return len(link._assembler._assemblies)

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
        (frames.pack_welcome(0, []), b"\xff\xff garbage"),
        (frames.pack_welcome(0, []), frames.pack_cancel(1, CancelReason.CLIENT)),
        (frames.pack_welcome(0, []), frames.pack_welcome(0, [])),
    ],
    ids=["garbage first", "garbage later", "not a replica's", "welcome twice"],
)
def test_a_caller_survives_a_replica_that_sends_nonsense_and_connects_again(answers: tuple[bytes, ...]) -> None:
    server = RawServer(*answers)
    with replica_of(Service()) as replica:
        replica.kill()
        replica.servicer.Link = server.Link  # type: ignore[method-assign, assignment]
        on_io(replica._start())
        mesh = SmallMesh((replica,))
        until(lambda: server.links >= 2, "a second attempt")
        mesh.close()


def test_a_second_welcome_is_the_replicas_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Its calls fail with that as the reason, and nothing is logged as a defect of ours."""
    server = RawServer(frames.pack_welcome(0, []), frames.pack_welcome(0, []))
    reasons: list[str] = []
    with replica_of(Service()) as replica, patch.object(Router, "on_broken", _keeping(reasons, Router.on_broken)):
        replica.kill()
        replica.servicer.Link = server.Link  # type: ignore[method-assign, assignment]
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


# ---- Breaks ----------------------------------------------------------------------------------------------------------


def test_a_killed_replica_fails_what_it_executes_and_nothing_else() -> None:
    services = Service(), Service()
    with mesh_of(*services, limit=50) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(200)]
        until(lambda: sum(service.started for service in services) == 100, "both replicas to be full")
        mesh.replicas[0].kill()
        until(lambda: sum(_has_ended(response) for response in hanging) == 50, "the end of what it executed")
        for error in [_end(response) for response in hanging if _has_ended(response)]:
            assert isinstance(error, ReplicaUnavailableError)
            assert error.replica_id == mesh.replicas[0].replica_id
            assert error.replica_id in str(error)
            assert error.maybe_executed
        until(lambda: services[1].started == 50, "the other replica to go on")
        for response in hanging:
            response.cancel()
        until(lambda: mesh.replicas[0].is_idle, "the killed replica's calls to be cancelled")
        mesh.replicas.pop(0).close()
        mesh.publish()
        mesh.assert_idle()


def _has_ended(response: Any) -> bool:
    return response._future.outcome is not None


def test_calls_that_had_not_left_succeed_elsewhere() -> None:
    """The link to the first replica is held up before it writes; then it breaks."""
    services = Service(), Service()
    with mesh_of(*services) as mesh:
        endpoints = list(mesh.router._pool._endpoints.values())
        stuck = endpoints[0].link
        assert stuck is not None
        assert stuck._writer is not None
        released = do_on_io(asyncio.Event)

        async def never(data: bytes) -> None:
            await released.wait()

        writer: Any = stuck._writer
        writer._write = never
        large = [mesh.handle().remote(b"x" * 2_000_000) for _ in range(4)]
        small = [mesh.handle().remote(number) for number in range(100)]
        mesh.replicas[0].kill()
        ends = [_end(response) for response in (*small, *large)]
        # What the writer had taken when the link broke, one message at most, may have run; all else must not fail.
        failed = [end for end in ends if isinstance(end, MeshException)]
        assert all(isinstance(end, ReplicaUnavailableError) for end in failed)
        assert len(failed) <= writer.written < len(small)
        assert services[0].started == 0
        mesh.replicas.pop(0).close()
        mesh.assert_idle()


def test_a_link_that_cannot_write_breaks_and_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    with mesh_of(Service()) as mesh:
        (endpoint,) = mesh.router._pool._endpoints.values()
        assert endpoint.link is not None
        writer: Any = endpoint.link._writer

        def fail() -> bytes:
            raise ZeroDivisionError("a defect")

        writer._next_message = fail
        response = mesh.handle().remote(1)
        assert response.result(timeout_s=DEADLINE_S) == 1, "it had not left: the next link carries it"
        assert "a defect" in caplog.text


def _end(response: Any) -> Any:
    try:
        return response.result(timeout_s=DEADLINE_S)
    except MeshException as error:
        return error


def test_an_idempotent_call_is_repeated_where_it_may_have_run() -> None:
    services = Service(), Service()
    with mesh_of(*services) as mesh:
        hanging = [mesh.handle("hang", idempotent=True).remote() for _ in range(20)]
        until(lambda: services[0].started + services[1].started == 20, "all to run")
        on_first = services[0].started
        mesh.replicas[0].kill()
        until(lambda: services[1].started == 20, "all to run on the other")
        assert on_first
        for response in hanging:
            response.cancel()
        mesh.replicas.pop(0).close()
        mesh.assert_idle()


def test_a_restarted_link_is_used_again() -> None:
    with mesh_of(Service()) as mesh:
        replica = mesh.replicas[0]
        replica.kill()
        until(lambda: mesh.router.link_count == 0, "the break to be seen")
        waiting = mesh.handle().remote(7)
        on_io(replica._start())
        assert waiting.result(timeout_s=DEADLINE_S) == 7


def test_a_draining_replica_gets_no_new_calls_and_ends_those_it_has() -> None:
    class Gate(Service):
        def __init__(self) -> None:
            super().__init__()
            self.event = asyncio.Event()

        async def wait(self) -> int:
            self.started += 1
            await self.event.wait()
            return self.started

    gates = Gate(), Gate()
    with mesh_of(*gates) as mesh:
        waiting = [mesh.handle("wait").remote() for _ in range(20)]
        until(lambda: gates[0].started + gates[1].started == 20, "all to run")
        on_first = gates[0].started
        do_on_io(mesh.replicas[0].servicer.drain)
        more = [mesh.handle("wait").remote() for _ in range(20)]
        until(lambda: gates[1].started == 40 - on_first, "all new calls on the other")
        for gate, replica in zip(gates, mesh.replicas, strict=True):
            replica.user_loop.post(gate.event.set)
        for response in (*waiting, *more):
            response.result(timeout_s=DEADLINE_S)
        assert gates[0].started == on_first
        mesh.assert_idle()


def test_a_drain_waits_until_results_have_left() -> None:
    with mesh_of(Service()) as mesh:
        replica = mesh.replicas[0]
        value = b"x" * 20_000_000
        response = mesh.handle().remote(value)
        until(lambda: replica.counts.methods["__call__"].by_code, "the call to have ended at its replica")

        on_io(leave(replica))
        assert response.result(timeout_s=DEADLINE_S) == value


async def leave(replica: SmallReplica) -> None:
    """What a replica without calls does when it drains."""
    replica.servicer.drain()
    await replica.servicer.wait_drain_acknowledged()
    await replica.admission.idle()
    await replica.servicer.flush()
    replica.servicer.stop()


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "in parts"])
def test_no_call_is_lost_on_the_way_to_a_replica_that_leaves(size: int) -> None:
    with mesh_of(*(Service() for _ in range(12))) as mesh:
        value = b"x" * size

        def call_on() -> int:
            count = 0
            while not is_over.is_set():
                assert mesh.handle().remote(value).result(timeout_s=DEADLINE_S) == value
                count += 1
            return count

        is_over = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            callers = [pool.submit(call_on) for _ in range(8)]
            try:
                for replica in mesh.replicas[1:]:
                    on_io(leave(replica))
            finally:
                is_over.set()
        assert all(caller.result() for caller in callers)
        mesh.assert_idle()


def test_a_call_that_crosses_a_drain_is_refused_and_not_lost() -> None:
    async def talk(peer: Peer) -> list[str]:
        await peer.write(hello(replica))
        await peer.read()
        leaving = asyncio.create_task(leave(replica))
        assert [each.WhichOneof("kind") for each in await peer.read()] == ["drain"]
        await peer.write(open_frame(1))
        answers = [each.WhichOneof("kind") or "" for each in await peer.read()]
        assert not leaving.done()
        await peer.write(frames.pack_drain())
        await leaving
        assert (await peer.failure())[0] is grpc.StatusCode.OK
        return answers

    with replica_of(Service()) as replica:
        assert converse(replica, talk) == ["reject"]


def test_a_caller_that_connects_to_a_leaving_replica_hears_it_first() -> None:
    async def talk(peer: Peer) -> list[str]:
        await peer.write(hello(replica))
        return [each.WhichOneof("kind") or "" for each in await peer.read()]

    with replica_of(Service()) as replica:
        do_on_io(replica.servicer.drain)
        assert converse(replica, talk) == ["drain", "welcome"]


def test_a_delisted_replica_ends_its_calls_and_then_its_link() -> None:
    service = Service()
    with mesh_of(service, Service()) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: service.started, "a call to run")
        delisted = mesh.replicas.pop(0)
        mesh.publish()
        assert mesh.handle().remote(1).result(timeout_s=DEADLINE_S) == 1
        assert delisted.servicer.links
        assert mesh.router.ongoing == 20
        for response in hanging:
            response.cancel()
        until(lambda: not delisted.servicer.links, "the link to be closed")
        delisted.close()
        mesh.assert_idle()


def test_a_caller_that_leaves_takes_its_calls_along() -> None:
    service = Service()
    with mesh_of(service) as mesh:
        hanging = [mesh.handle("hang").remote() for _ in range(20)]
        until(lambda: service.started == 20, "all to run")
        on_io(mesh.router.close())
        until(lambda: service.cancelled == 20, "all to be cancelled")
        until(lambda: mesh.replicas[0].is_idle, "their places")
        assert all(isinstance(_end(response), MeshException) for response in hanging)


# ---- Full replicas ---------------------------------------------------------------------------------------------------


def test_callers_who_fill_a_replica_together_all_get_their_turn() -> None:
    """Each of them sees the others' calls only through what the replica tells."""
    service = Service()
    with mesh_of(service, limit=2) as mesh:
        others = [SmallMesh((mesh.replicas[0],)).connected() for _ in range(3)]
        try:
            responses = [each.handle().remote(number) for number in range(200) for each in (mesh, *others)]
            results = [response.result(timeout_s=DEADLINE_S) for response in responses]
            assert results == [number for number in range(200) for _ in range(4)]
        finally:
            for each in others:
                on_io(each.router.close())
        mesh.assert_idle()


def test_a_caller_with_a_long_call_hears_that_others_have_left() -> None:
    """It knows of one other call and has one itself, so it takes the replica for full. Then the other call ends."""
    service = Service()
    with mesh_of(service, limit=2) as mesh:
        other = SmallMesh((mesh.replicas[0],)).connected()
        try:
            foreign = other.handle("hang").remote()
            until(lambda: service.started == 1, "the other's call to run")
            assert mesh.handle().remote(0).result(timeout_s=DEADLINE_S) == 0
            own = mesh.handle("hang").remote()
            until(lambda: service.started == 2, "both to run")
            queued = mesh.handle().remote(1)
            foreign.cancel()
            assert queued.result(timeout_s=DEADLINE_S) == 1
            own.cancel()
        finally:
            on_io(other.router.close())
        mesh.assert_idle()


def test_a_raised_limit_lets_waiting_calls_in() -> None:
    service = Service()
    with mesh_of(service, limit=1) as mesh:
        replica = mesh.replicas[0]
        hanging = [mesh.handle("hang").remote() for _ in range(3)]
        until(lambda: service.started == 1, "one to run")
        do_on_io(replica.admission.set_limit, 3, replica.servicer.links)
        mesh.publish()
        until(lambda: service.started == 3, "all to run")
        for response in hanging:
            response.cancel()
        mesh.assert_idle()
