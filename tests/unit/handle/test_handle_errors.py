"""Handles over real links: errors of user code and of the mesh arrive as they were raised."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from mesh.caller.call_options import CallOptions
from mesh.context import REQUEST, Request
from mesh.exceptions import (
    DeadlineExceededError,
    MeshException,
    RemoteError,
    UnserializableError,
)
from mesh.handle import DeploymentHandle
from mesh.testing import grpc_context
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of, until
from tests.unit.handle.store import STREAMS, MuteError, OddError, Store, raised, result

pytestmark = pytest.mark.timeout(60)


def test_user_exceptions_keep_their_type_and_tell_where(mesh: SmallMesh) -> None:
    """The remote traceback begins with user code (item 25)."""
    error = raised(mesh.handle("fail").remote("zero"))
    assert type(error) is ZeroDivisionError
    frames = [line.strip() for line in error.__notes__[0].splitlines() if line.strip().startswith("File")]
    assert "store.py" in frames[0], "the user's code comes first"


def test_an_exception_with_a_constructor_of_its_own_arrives_as_it_was(mesh: SmallMesh) -> None:
    """Its class is not called again (item 25)."""
    error = raised(mesh.handle("fail").remote("odd"))
    assert isinstance(error, OddError)
    assert (str(error), error.code) == ("odd 7", 7)


@pytest.mark.parametrize("name", ["locked", "mute", "exit"])
def test_exceptions_that_do_not_travel_arrive_by_name(mesh: SmallMesh, name: str) -> None:
    names = {"locked": "LockedError", "mute": "MuteError", "exit": "SystemExit"}
    error = raised(mesh.handle("fail").remote(name))
    if name == "mute":
        assert isinstance(error, MuteError)
    else:
        assert isinstance(error, RemoteError)
        assert error.type_name == names[name]
    assert result(mesh.handle().remote("still there")) == "still there"


def test_text_that_is_no_utf8_travels_in_errors(mesh: SmallMesh, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "mesh")  # pytest-xdist cannot send such text to its main process
    error = raised(mesh.handle("fail").remote("surrogate"))
    assert isinstance(error, ValueError)


def test_a_result_that_cannot_be_pickled_fails_its_call_only(mesh: SmallMesh) -> None:
    error = raised(mesh.handle("unpicklable").remote())
    assert isinstance(error, UnserializableError)
    assert "result" in str(error)


def test_an_argument_that_cannot_be_pickled_fails_at_the_call_site(mesh: SmallMesh) -> None:
    with pytest.raises(UnserializableError, match="arguments"):
        mesh.handle().remote(threading.Lock())


def test_unknown_methods_name_those_there_are(mesh: SmallMesh) -> None:
    """The error quotes the name that was called (item 26)."""
    error = raised(mesh.handle("nothing").remote())
    assert isinstance(error, MeshException)
    assert "'nothing'" in str(error)
    assert "'plain'" in str(error)


def test_looking_for_methods_runs_no_property() -> None:
    """A property may load a model, or raise (item 26)."""

    class Lazy:
        read = 0

        @property
        def model(self) -> Any:
            Lazy.read += 1
            raise ValueError("not loaded")

        @classmethod
        def of_class(cls) -> None: ...

    with mesh_of(Lazy()) as mesh:
        error = raised(mesh.handle("nothing").remote())
    assert "'of_class'" in str(error)
    assert "'model'" not in str(error)
    assert not Lazy.read


def test_wrong_arguments_are_a_type_error(mesh: SmallMesh) -> None:
    """The error is the one that Python raises (item 27)."""
    assert isinstance(raised(mesh.handle("plain").remote(1, 2, 3)), TypeError)


@pytest.mark.parametrize("method", STREAMS)
def test_a_generator_needs_stream(mesh: SmallMesh, method: str) -> None:
    """The error names the option (item 28)."""
    error = raised(mesh.handle(method).remote(3))
    assert isinstance(error, TypeError)
    assert "stream=True" in str(error)


def test_stream_needs_a_generator(mesh: SmallMesh) -> None:
    """The error comes with the first item (item 44)."""
    with pytest.raises(TypeError, match="did not return a generator"):
        next(mesh.handle("plain", stream=True).remote(3))


def test_calls_that_no_frame_can_carry_fail_alone(mesh: SmallMesh) -> None:
    token = REQUEST.set(Request(RequestContext(route="\udcff")))
    try:
        response = mesh.handle().remote()
    finally:
        REQUEST.reset(token)
    assert isinstance(raised(response), UnserializableError)
    assert result(mesh.handle().remote("still there")) == "still there"


@pytest.mark.parametrize("name", [None, 5, b"plain", ["plain"], "\udcff", "x" * 100_000], ids=str)
@pytest.mark.parametrize("option", ["method_name", "multiplexed_model_id"])
def test_names_that_are_no_text_are_refused_where_they_are_given(mesh: SmallMesh, option: str, name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        mesh.handle().options(**{option: name})
    with pytest.raises((TypeError, ValueError), match="deployment_name"):
        DeploymentHandle(name, "app")


NO_TIMEOUTS: list[tuple[Any, type[Exception]]] = [
    ("5", TypeError),
    (True, TypeError),
    (Decimal(5), TypeError),
    (math.nan, ValueError),
    (10**400, ValueError),
    (-(10**5000), ValueError),
]


@pytest.mark.parametrize(("timeout_s", "error"), NO_TIMEOUTS, ids=["text", "bool", "Decimal", "NaN", "huge", "-huge"])
def test_a_timeout_is_a_number_of_seconds(mesh: SmallMesh, timeout_s: Any, error: type[Exception]) -> None:
    """Wherever one is given: the error says so at once."""
    plain, stream = mesh.handle("plain").remote(1), mesh.handle(STREAMS[0], stream=True).remote(3)
    broadcast = mesh.handle().broadcast("plain", 1)

    async def results_in_a_loop() -> list[Any]:
        return await broadcast.results_async(timeout_s=timeout_s)

    calls: list[Callable[[], Any]] = [
        lambda: mesh.handle().options(timeout_s=timeout_s),
        lambda: CallOptions(timeout_s=timeout_s),
        lambda: plain.result(timeout_s=timeout_s),
        lambda: plain.initial_metadata_sync(timeout_s=timeout_s),
        lambda: stream.trailing_metadata_sync(timeout_s=timeout_s),
        lambda: broadcast.results(timeout_s=timeout_s),
        lambda: asyncio.run(results_in_a_loop()),
        lambda: grpc_context(timeout_s=timeout_s),
    ]
    for call in calls:
        with pytest.raises(error, match="timeout_s must be a number of seconds or None"):
            call()


@pytest.mark.parametrize("timeout_s", [math.inf, 1e300, 10**300], ids=str)
def test_a_timeout_may_be_as_long_as_floating_point_numbers_go(mesh: SmallMesh, timeout_s: float) -> None:
    handle = mesh.handle("plain", timeout_s=timeout_s)
    assert handle.remote(1).result(timeout_s=timeout_s) == 1
    assert handle.remote(1).initial_metadata_sync(timeout_s=timeout_s) == ()
    assert handle.broadcast("plain", 1).results(timeout_s=timeout_s) == [1]

    async def in_a_loop() -> list[Any]:
        return await handle.broadcast("plain", 1).results_async(timeout_s=timeout_s)

    assert asyncio.run(in_a_loop()) == [1]


def test_a_call_that_cannot_be_made_is_no_child(mesh: SmallMesh) -> None:
    """It leaves nothing behind in its parent (item 38)."""
    parent = Request()
    token = REQUEST.set(parent)
    try:
        with pytest.raises(TypeError):
            mesh.handle().remote(threading.Lock())
    finally:
        REQUEST.reset(token)
    assert not parent.children


@pytest.mark.parametrize("timeout_s", [1e7, 1e12, 1e300, float("inf")])
def test_deadlines_in_the_far_future_are_no_trouble(mesh: SmallMesh, timeout_s: float) -> None:
    assert result(mesh.handle(timeout_s=timeout_s).remote(1)) == 1


def test_an_expired_deadline_ends_the_call_and_the_code(mesh: SmallMesh, store: Store) -> None:
    error = raised(mesh.handle("hang", timeout_s=0.05).remote())
    assert isinstance(error, DeadlineExceededError)
    until(lambda: store.cancelled == store.started, "the user's code to see the cancel")
