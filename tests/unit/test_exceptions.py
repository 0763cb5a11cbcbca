"""mesh.exceptions: each error survives pickling, says what to do next and is caught under every contract name."""

import asyncio
import concurrent.futures
import copy
import pickle

import grpc
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from mesh import exceptions
from mesh.cluster.ray_core import RayActorError, TaskCancelledError
from mesh.rpc.status_details import DETAILS_KEY
from mesh.settings import settings

ERRORS = [
    exceptions.MeshException("broken"),
    exceptions.BackPressureError(num_queued_requests=3, max_queued_requests=2, status_code=429, retry_after_s=1.5),
    exceptions.DeploymentUnavailableError("Deployment(name='A', app='x')", "the constructor failed"),
    exceptions.ReplicaUnavailableError("r1", "its process ended", maybe_executed=True),
    exceptions.RequestCancelledError(),
    exceptions.RequestCancelledError(reason=exceptions.CancelReason.DRAIN),
    exceptions.DeadlineExceededError(),
    exceptions.GrpcStatusError(grpc.StatusCode.NOT_FOUND, "no such item", [("key", b"value"), ("k-bin", b"\0")]),
    exceptions.GrpcStatusError.with_details(grpc.StatusCode.NOT_FOUND, "no such item", ErrorInfo(reason="SOLD_OUT")),
    exceptions.UnserializableError("cannot pickle"),
    exceptions.PayloadTooLargeError("result", 11, 10),
    exceptions.RemoteError("LockError", "held", "Traceback ..."),
    exceptions.DisconnectedError(),
    exceptions.QueueTimeoutError("waited 3.0 s", 3.0, num_queued_requests=3, max_queued_requests=-1),
    exceptions.ChangeConflictError("ann@host changed it"),
    exceptions.ControllerUnavailableError.after(3.0, "connection refused"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(error: exceptions.MeshException, protocol: int) -> None:
    """Type, text and attributes survive a hop (items 142, 143)."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.code is error.code
    assert again.is_retry_safe == error.is_retry_safe
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_can_be_copied(error: exceptions.MeshException) -> None:
    assert str(copy.copy(error)) == str(error)


def test_every_exported_error_is_tested() -> None:
    defined = {value for value in vars(exceptions).values() if _is_mesh_error(value)}
    assert defined == {type(error) for error in ERRORS}


def _is_mesh_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, exceptions.MeshException)


def test_subclass_with_its_own_constructor_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(_Custom(why="x", when=3)))
    assert (again.why, again.when, str(again)) == ("x", 3, "x at 3")


class _Custom(exceptions.MeshException):
    def __init__(self, *, why: str, when: int) -> None:
        super().__init__(f"{why} at {when}")
        self.why = why
        self.when = when


def test_back_pressure_names_both_counts_and_the_http_status() -> None:
    """Counts, HTTP status and retry time can be read (item 142)."""
    error = ERRORS[1]
    assert isinstance(error, exceptions.BackPressureError)
    assert error.message.startswith(
        "Request dropped due to backpressure (num_queued_requests=3, max_queued_requests=2)"
    )
    assert (error.status_code, error.retry_after_s) == (429, 1.5)
    assert exceptions.BackPressureError(num_queued_requests=0, max_queued_requests=0).status_code == 503


def test_back_pressure_says_how_busy_the_replicas_are() -> None:
    error = exceptions.BackPressureError(num_queued_requests=3, max_queued_requests=2, usage="5 of 5 calls busy")
    assert "max_queued_requests=2): 5 of 5 calls busy. Retry later" in error.message


@pytest.mark.parametrize(
    "name",
    [
        exceptions.MeshException,
        exceptions.RequestCancelledError,
        TaskCancelledError,
        concurrent.futures.CancelledError,
        asyncio.CancelledError,
    ],
)
def test_a_cancelled_call_is_caught_under_every_contract_name(name: type[BaseException]) -> None:
    """One class is caught under the names of all releases (C1)."""
    with pytest.raises(name):
        raise exceptions.RequestCancelledError


async def _await_cancelled() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(exceptions.RequestCancelledError())
    await future


@pytest.mark.parametrize("name", [asyncio.CancelledError, exceptions.RequestCancelledError])
def test_awaiting_a_cancelled_call_raises_both_names(name: type[BaseException]) -> None:
    """That holds for `await` too (C1)."""

    async def main() -> None:
        with pytest.raises(name):
            await _await_cancelled()

    asyncio.run(main())


def test_a_deadline_is_a_timeout_and_an_unserializable_value_a_type_error() -> None:
    assert isinstance(exceptions.DeadlineExceededError(), TimeoutError)
    assert isinstance(exceptions.UnserializableError("x"), TypeError)


def test_a_lost_replica_is_named_and_safe_to_retry_only_when_nothing_ran() -> None:
    ran = exceptions.ReplicaUnavailableError("r1")
    unsent = exceptions.ReplicaUnavailableError("r1", maybe_executed=False)
    assert "r1" in str(ran)
    assert "idempotent" in str(ran)
    assert (ran.is_retry_safe, unsent.is_retry_safe) == (False, True)


def test_a_lost_replica_is_a_lost_actor_for_code_that_comes_from_ray_serve() -> None:
    """It is caught as such, also after a journey, and says as much as before (D7)."""
    with pytest.raises(RayActorError, match="r1 is unavailable: its process ended"):
        raise pickle.loads(pickle.dumps(exceptions.ReplicaUnavailableError("r1", "its process ended")))
    error = exceptions.ReplicaUnavailableError("r1")
    assert (error.error_msg, error.preempted, error.actor_init_failed) == (str(error), False, False)


def test_text_in_trailers_becomes_bytes_as_the_wire_has_it() -> None:
    error = exceptions.GrpcStatusError(grpc.StatusCode.ABORTED, "", [("hint", "later"), ("raw-bin", b"\0")])
    assert error.trailers == (("hint", b"later"), ("raw-bin", b"\0"))


def test_details_of_an_error_have_its_code_and_message() -> None:
    """Clients refuse others (item 142)."""
    given = (ErrorInfo(reason="SOLD_OUT"), RetryInfo(retry_delay={"seconds": 3}))
    error = exceptions.GrpcStatusError.with_details(grpc.StatusCode.UNAVAILABLE, "sold out", *given)
    assert error.error_details == given
    assert (error.code, error.details, str(error)) == (grpc.StatusCode.UNAVAILABLE, "sold out", "UNAVAILABLE: sold out")
    status = status_pb2.Status.FromString(dict(error.trailers)[DETAILS_KEY])
    assert (status.code, status.message) == (grpc.StatusCode.UNAVAILABLE.value[0], "sold out")
    assert exceptions.GrpcStatusError(grpc.StatusCode.UNAVAILABLE).error_details == ()


def test_a_message_that_would_be_cut_is_refused_with_details() -> None:
    limit = settings().payload.error_details_max_chars
    assert exceptions.GrpcStatusError.with_details(grpc.StatusCode.ABORTED, "x").error_details == ()
    with pytest.raises(ValueError, match=f"at most {limit} characters"):
        exceptions.GrpcStatusError.with_details(grpc.StatusCode.ABORTED, "x" * (limit + 1))


def test_a_remote_error_shows_the_remote_traceback() -> None:
    assert "Traceback ..." in str(exceptions.RemoteError("LockError", "held", "Traceback ..."))


def test_no_status_error_is_ok() -> None:
    """A call that ended with it would have succeeded, without a result."""
    with pytest.raises(ValueError, match="return the response instead"):
        exceptions.GrpcStatusError(grpc.StatusCode.OK, "fine")


def test_the_names_of_ray_serve_are_those_of_the_mesh() -> None:
    """One changed import is enough for code that catches them (D11)."""
    assert exceptions.RayServeException is exceptions.MeshException
    assert exceptions.gRPCStatusError is exceptions.GrpcStatusError
