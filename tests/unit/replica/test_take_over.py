"""mesh.replica.replica: what a running replica takes over of another configuration, and what its checks answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.context import get_replica_context, set_replica_context
from mesh.membership.own_health import OwnHealth
from mesh.replica.replica import ReplicaProcess
from mesh.replica.user_object import UserObject
from mesh.usercode.user_code import UserCode
from mesh.v1 import common_pb2, control_pb2
from mesh.wire.io_thread import io_thread


@pytest.fixture
def outside_again() -> Iterator[None]:
    yield
    set_replica_context(None)


def spec_with(max_ongoing_requests: int) -> control_pb2.ReplicaSpec:
    options = control_pb2.DeploymentOptions(max_ongoing_requests=max_ongoing_requests, isolate_user_loop=True)
    return control_pb2.ReplicaSpec(
        replica_id="r1",
        deployment=common_pb2.DeploymentId(app="shop", name="Stock"),
        config_version=f"c{max_ongoing_requests}",
        spec=control_pb2.DeploymentSpec(name="Stock", version="v1", options=options),
    )


@pytest.mark.usefixtures("outside_again")
def test_the_context_of_a_replica_has_the_limit_of_now() -> None:
    """Code that reads it, as batched functions do, sees the limit that a changed configuration has (items 130, 187)."""

    async def scenario() -> None:
        replica = ReplicaProcess(spec_with(4))
        await replica.reconfigure(spec_with(8))
        context = get_replica_context()
        assert (context.max_ongoing_requests, context.replica_tag, context.deployment) == (8, "r1", "Stock")
        await replica.drain()

    io_thread().submit(scenario()).result(10)


class Exits:
    """Its checks end with `sys.exit`, as those of a command would."""

    async def check_health(self) -> None:
        raise SystemExit("no licence")

    async def check_ready(self) -> None:
        raise SystemExit("no licence")


class ExitsAtItsEnd:
    """Its `__del__` ends with `sys.exit`."""

    def __del__(self) -> None:
        raise SystemExit("done")


@pytest.mark.usefixtures("outside_again")
def test_a_finaliser_that_calls_sys_exit_does_not_cut_off_the_drain(caplog: pytest.LogCaptureFixture) -> None:
    """The links are closed and spans exported as after any other error of it."""

    async def scenario() -> str:
        replica = ReplicaProcess(spec_with(4))
        replica._object = UserObject(UserCode(ExitsAtItsEnd, ()))
        await replica._on_user_loop(replica._object.construct())
        await replica.drain()
        return repr(replica._user_loop)

    assert "stopped" in io_thread().submit(scenario()).result(10)
    assert "__del__ of Stock failed" in caplog.text


@pytest.mark.usefixtures("outside_again")
@pytest.mark.parametrize("is_isolated", [True, False])
def test_checks_that_call_sys_exit_are_answers_like_others(is_isolated: bool) -> None:
    """They must not end the actor, whose calls would fail, nor the replica's own checks."""

    async def scenario() -> tuple[str, bool]:
        spec = spec_with(4)
        spec.spec.options.isolate_user_loop = is_isolated
        replica = ReplicaProcess(spec)
        replica._object = UserObject(UserCode(Exits, ()))
        await replica._on_user_loop(replica._object.construct())
        own_health = OwnHealth("r1", replica.check_health, lambda: spec.spec.options, lambda health: None)
        answers = await replica.check_ready(), await own_health._is_well()
        await replica.drain()
        return answers

    assert io_thread().submit(scenario()).result(10) == ("SystemExit: no licence", False)


class HasOddFiles:
    """The name of a file that is not in UTF-8 is in what it raises."""

    async def check_ready(self) -> None:
        raise FileNotFoundError("no file \udcff")


@pytest.mark.usefixtures("outside_again")
def test_a_reason_that_is_not_in_unicode_reaches_the_controller() -> None:
    """One that asks who this replica is would get no answer, and end it."""

    async def scenario() -> tuple[bytes, str]:
        replica = ReplicaProcess(spec_with(4))
        replica._object = UserObject(UserCode(HasOddFiles, ()))
        await replica._on_user_loop(replica._object.construct())
        answer = (await replica.check_ready()).encode()
        ready = control_pb2.ReplicaReady(not_ready=replica._object.not_ready)
        await replica.drain()
        return answer, ready.not_ready

    told = "FileNotFoundError: no file \\udcff"
    assert io_thread().submit(scenario()).result(10) == (told.encode(), told)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


class Unspeakable:
    def check_ready(self) -> None:
        raise UnspeakableError


@pytest.mark.usefixtures("outside_again")
def test_an_error_of_a_check_that_has_no_text_is_named_by_its_class() -> None:
    async def scenario() -> str:
        replica = ReplicaProcess(spec_with(4))
        replica._object = UserObject(UserCode(Unspeakable, ()))
        await replica._on_user_loop(replica._object.construct())
        answer = await replica.check_ready()
        await replica.drain()
        return answer

    assert io_thread().submit(scenario()).result(10) == "UnspeakableError"
