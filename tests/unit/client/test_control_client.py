"""mesh.client.control_client: a call waits for a controller that is restarting, and then works."""

import asyncio
import getpass
from collections import deque

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from mesh.client import grpc_channel
from mesh.client.control_client import ConfigText, ControlClient, ControllerNotReadyError, author, until_answered
from mesh.client.grpc_channel import GrpcChannel
from mesh.exceptions import ChangeConflictError, ControllerUnavailableError, MeshException
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread


def rpc_error(code: grpc.StatusCode, details: str = "why") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


class FakeChannel:
    """Answers what it was given, one after the other; the last one again and again."""

    def __init__(self, *answers: Message | Exception) -> None:
        self._answers = deque(answers)
        self.requests: list[tuple[str, Message]] = []
        self.closes = 0
        self.failure = ""

    async def call(self, method: str, request: Message, reply: type[Message], timeout_s: float) -> Message:
        self.requests.append((method, request))
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closes += 1

    async def start_failure(self) -> str:
        return self.failure


class FakeClock:
    """Every look takes a second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def ask(channel: FakeChannel, timeout_s: float = 5.0) -> Message:
    return asyncio.run(
        until_answered(
            channel, "Status", control_pb2.StatusRequest(), control_pb2.StatusReply, timeout_s, clock=FakeClock()
        )
    )


REPLY = control_pb2.StatusReply(is_shutting_down=True)


def test_an_answer_is_passed_on() -> None:
    channel = FakeChannel(REPLY)
    assert ask(channel) == REPLY
    assert channel.closes == 0


@pytest.mark.parametrize(
    "trouble",
    [
        ControllerNotReadyError("still starting"),
        rpc_error(grpc.StatusCode.UNAVAILABLE),
        rpc_error(grpc.StatusCode.UNAUTHENTICATED),
    ],
)
def test_what_a_restart_looks_like_is_tried_again_on_a_new_line(trouble: Exception) -> None:
    channel = FakeChannel(trouble, REPLY)
    assert ask(channel) == REPLY
    assert (len(channel.requests), channel.closes) == (2, 1)


def test_a_controller_that_stays_away_is_named_with_the_last_reason() -> None:
    with pytest.raises(ControllerUnavailableError, match=r"5 s \(still starting\)"):
        ask(FakeChannel(ControllerNotReadyError("still starting")))


def test_a_conflict_is_an_error_of_its_own_and_not_tried_again() -> None:
    channel = FakeChannel(rpc_error(grpc.StatusCode.ABORTED, "ann@host changed it"))
    with pytest.raises(ChangeConflictError, match="ann@host changed it"):
        ask(channel)
    assert len(channel.requests) == 1


def test_a_controller_that_does_not_answer_in_time_is_not_asked_twice() -> None:
    channel = FakeChannel(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED))
    with pytest.raises(ControllerUnavailableError, match="DEADLINE_EXCEEDED"):
        ask(channel)
    assert len(channel.requests) == 1


def test_the_error_names_why_the_controller_fails_to_start() -> None:
    channel = FakeChannel(ControllerNotReadyError("still starting"))
    channel.failure = "its start fails: DecodeError: no protobuf"
    with pytest.raises(ControllerUnavailableError, match=r"its start fails: DecodeError"):
        ask(channel)


def test_a_call_whose_channel_another_thread_closes_can_be_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share the channel: one that loses the controller closes it for all of them."""
    connected = asyncio.Event()

    async def connect() -> grpc.aio.Channel:
        connected.set()
        return grpc.aio.insecure_channel("127.0.0.1:1", options=[("grpc.enable_retries", 0)])

    monkeypatch.setattr(grpc_channel, "_connect", connect)
    monkeypatch.setattr(grpc_channel, "token_metadata", lambda: ())
    monkeypatch.setattr(grpc_channel, "renew_token", lambda: b"")

    async def call_and_close() -> None:
        channel = GrpcChannel()
        call = asyncio.ensure_future(channel.call("Status", control_pb2.StatusRequest(), control_pb2.StatusReply, 10.0))
        await connected.wait()
        await channel.close()
        with pytest.raises(ControllerNotReadyError, match="was closed"):
            await call

    io_thread().run(call_and_close(), 10)


def test_a_kv_that_does_not_answer_holds_up_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(grpc_channel, "run_blocking", never)
    monkeypatch.setattr(grpc_channel, "_FAILURE_TIMEOUT_S", 0.01)
    channel = GrpcChannel()

    async def call() -> str:
        with pytest.raises(ControllerNotReadyError, match="KV"):
            await channel.call("Status", control_pb2.StatusRequest(), control_pb2.StatusReply, 0.01)
        return await channel.start_failure()

    assert asyncio.run(call()) == ""


def test_a_refusal_is_raised_in_the_controller_s_words() -> None:
    """The reason reaches the user unchanged (item 67)."""
    with pytest.raises(MeshException, match="prefix '/x' belongs to 'other'"):
        ask(FakeChannel(rpc_error(grpc.StatusCode.ALREADY_EXISTS, "prefix '/x' belongs to 'other'")))


NOTHING_READ = control_pb2.ExpectedRevisions()
"""There was no application."""


def test_each_call_sends_its_request() -> None:
    channel = FakeChannel(control_pb2.ApplyReply(), control_pb2.DeleteReply(), REPLY)
    client = ControlClient(channel)
    spec = control_pb2.ApplicationSpec(name="app")
    client.apply([spec], expected={})
    client.delete("app")
    client.shutdown()
    assert client.status() == REPLY
    ids = [getattr(request, "request_id", "") for _, request in channel.requests]
    assert channel.requests == [
        (
            "Apply",
            control_pb2.ApplyRequest(applications=[spec], request_id=ids[0], author=author(), expected=NOTHING_READ),
        ),
        ("Delete", control_pb2.DeleteRequest(application="app", request_id=ids[1], author=author())),
        ("Shutdown", control_pb2.ShutdownRequest(request_id=ids[2])),
        ("Status", control_pb2.StatusRequest()),
    ]
    assert len({*ids}) == 4
    client.close()
    assert channel.closes == 1


def test_a_repeated_request_says_that_it_is_the_same() -> None:
    """So the controller does not store it again over a newer one."""
    channel = FakeChannel(rpc_error(grpc.StatusCode.UNAVAILABLE), control_pb2.ApplyReply())
    ControlClient(channel).apply([control_pb2.ApplicationSpec(name="app")])
    (_, first), (_, second) = channel.requests
    assert first == second


def test_a_blocking_call_on_the_io_thread_is_refused() -> None:
    client = ControlClient(FakeChannel(REPLY))

    async def on_the_io_thread() -> None:
        client.status()

    with pytest.raises(RuntimeError, match="would stall the I/O thread"):
        io_thread().run(on_the_io_thread(), 5)


def test_what_a_deploy_means_for_others_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Programs and commands show it alike (item 212)."""
    client = ControlClient(FakeChannel(control_pb2.ApplyReply(warnings=["one", "two"])))
    client.apply([])
    assert caplog.messages == ["one", "two"]


def test_what_a_deletion_means_for_others_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ControlClient(FakeChannel(control_pb2.DeleteReply(warnings=["one"]))).delete("shop")
    assert caplog.messages == ["one"]


def test_users_and_files_whose_names_are_not_in_unicode_can_be_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are bytes that may be anything."""
    monkeypatch.setattr(getpass, "getuser", lambda: "jos\udce9")
    channel = FakeChannel(control_pb2.ApplyReply())
    ControlClient(channel).apply([], ConfigText("applications: []", "caf\udce9.yaml"))
    ((_, request),) = channel.requests
    assert isinstance(request, control_pb2.ApplyRequest)
    assert request.author.startswith("jos\\udce9@")
    assert request.config_name == "caf\\udce9.yaml"
