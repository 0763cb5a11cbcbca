"""Outcomes: errors keep type, code and traceback across the wire, whatever they are; tracebacks begin with the user."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from mesh.exceptions import (
    BackPressureError,
    DeadlineExceededError,
    GrpcStatusError,
    MeshException,
    RemoteError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from mesh.settings import settings
from mesh.v1 import common_pb2
from mesh.wire import payload as payloads
from mesh.wire.outcome import (
    Outcome,
    describe,
    failed,
    failed_in_user_code,
    read_status,
    status_code,
    to_exception,
    users_traceback,
    write_status,
)


@dataclass(frozen=True)
class FrozenError(Exception):
    reason: str


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class SecretiveError(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


class OddlyCodedError(MeshException):
    code = 5  # type: ignore[assignment]


class WellCodedError(MeshException):
    code = grpc.StatusCode.OK


def sent(outcome: Outcome) -> Outcome:
    """What the other end reads."""
    message = common_pb2.Status()
    write_status(outcome, message)
    return read_status(common_pb2.Status.FromString(message.SerializeToString()), None)


@pytest.mark.parametrize(
    "error",
    [
        MeshException("broken"),
        BackPressureError(num_queued_requests=3, max_queued_requests=2),
        ReplicaUnavailableError("r1", "gone"),
        RequestCancelledError(),
        DeadlineExceededError(),
        GrpcStatusError(grpc.StatusCode.NOT_FOUND, "no such thing", [("k", "v")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_meshs_errors_arrive_as_they_were(error: MeshException) -> None:
    arrived = to_exception(sent(failed(error)))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert sent(failed(error)).code == error.code.value[0]


def test_an_error_of_the_mesh_in_user_code_keeps_its_code() -> None:
    outcome = failed_in_user_code(GrpcStatusError(grpc.StatusCode.NOT_FOUND, "no such thing", [("k", "v")]))
    assert (outcome.code, outcome.message, outcome.trailers) == (5, "no such thing", (("k", b"v"),))


@pytest.mark.parametrize(
    "error",
    [
        FrozenError("stuck"),
        MuteError(),
        ValueError("\udcff\ud800"),
        SystemExit(1),
        KeyboardInterrupt(),
        SecretiveError(),
        OddlyCodedError("no status code"),
        WellCodedError("no status of an error"),
        GrpcStatusError(grpc.StatusCode.ABORTED, None),
        GrpcStatusError(grpc.StatusCode.ABORTED, ValueError("an exception for details")),
        ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_exception_can_be_reported(error: BaseException) -> None:
    outcome = sent(failed_in_user_code(error))
    assert not outcome.is_ok
    arrived = to_exception(outcome)
    assert isinstance(arrived, (type(error) if isinstance(error, Exception) else RemoteError, RemoteError))
    assert isinstance(arrived, Exception)


def test_a_description_can_be_sent() -> None:
    """As that of a file whose name is not in UTF-8."""
    error = OSError("no file \udcff")
    assert describe(error) == "OSError: no file \\udcff"
    assert describe(MuteError()) == "MuteError"
    outcome = failed_in_user_code(error)
    assert f"{outcome.message}{outcome.remote_traceback}".encode()


def test_an_error_with_thousands_of_causes_is_reported() -> None:
    """As that of a loop that raises each error from the one before."""
    error = ValueError("the first")
    for number in range(3_000):
        cause, error = error, ValueError(f"number {number}")
        error.__cause__ = cause
    outcome = failed_in_user_code(error)
    assert outcome.message == "ValueError: number 2999"
    assert outcome.remote_traceback.startswith("ValueError: the first\n")
    assert users_traceback(error).endswith("ValueError: number 2999\n")


def test_error_details_survive_hops() -> None:
    """A deployment that does not catch them passes them on (items 142, 143)."""
    given = ErrorInfo(reason="SOLD_OUT", domain="shop")
    error: BaseException = GrpcStatusError.with_details(grpc.StatusCode.NOT_FOUND, "none", given)
    for _ in range(3):
        outcome = failed_in_user_code(error)
        message = common_pb2.Status()
        write_status(outcome, message)
        error = to_exception(read_status(message, None))
    assert isinstance(error, GrpcStatusError)
    assert error.error_details == (given,)
    assert (outcome.code, outcome.message, outcome.trailers) == (5, "none", error.trailers)


def test_long_messages_are_cut() -> None:
    outcome = failed_in_user_code(ValueError("x" * 1_000_000))
    assert len(outcome.message) == settings().payload.error_details_max_chars


def test_an_exception_that_holds_much_does_not_travel_whole() -> None:
    outcome = failed_in_user_code(ValueError(b"x" * 10_000_000))
    assert len(outcome.pickled_exception) + len(outcome.remote_traceback) < 1_000_000
    assert isinstance(to_exception(sent(outcome)), RemoteError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1, RequestCancelledError), (4, DeadlineExceededError), (5, GrpcStatusError), (99, GrpcStatusError)],
)
def test_a_bare_status_becomes_the_nearest_exception(code: int, kind: type[Exception]) -> None:
    assert isinstance(to_exception(Outcome(code, "why")), kind)


class SoldOutError(Exception):
    """Takes other arguments than those it gives to Exception, as many of users' exceptions do."""

    def __init__(self, item: str, amount: int) -> None:
        super().__init__(f"{amount} of {item} are not there")
        self.item, self.amount = item, amount


class SoldFileError(OSError):
    def __init__(self, path: str, *, amount: int) -> None:
        super().__init__(2, "sold", path)
        self.amount = amount


@pytest.mark.parametrize("error", [SoldOutError("tea", 3), SoldFileError("tea.txt", amount=3)])
def test_an_exception_with_a_constructor_of_its_own_arrives_as_it_was(error: Any) -> None:
    """Its constructor is not called again (item 25)."""
    arrived = to_exception(sent(failed_in_user_code(error)))
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.amount, arrived.args) == (str(error), 3, error.args)  # type: ignore[attr-defined]


def test_what_cannot_be_pickled_says_why() -> None:
    """As a RemoteError with type, text and traceback (item 25)."""
    error = ValueError("behind a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    arrived = to_exception(sent(failed_in_user_code(error)))
    assert isinstance(arrived, RemoteError)
    assert arrived.message == "ValueError: behind a lock"
    assert str(arrived).endswith(
        "It arrives as RemoteError because it cannot be pickled: TypeError: cannot pickle '_thread.lock' object"
    )


def test_an_exception_whose_class_is_missing_here_arrives_by_name() -> None:
    outcome = Outcome(13, "why", pickled_exception=b"cno.such\nClass\n.", exception_type="Class", remote_traceback="tb")
    arrived = to_exception(outcome)
    assert isinstance(arrived, RemoteError)
    assert arrived.type_name == "Class"
    assert "tb" in str(arrived)


# ---- Tracebacks ------------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it calls a function: user code below frames of mesh/wire, as in a replica."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __reduce__(self) -> Any:
        return self.function, ()


def raised_below_the_mesh(data: bytes) -> BaseException:
    """What decoding raises, with the mesh's frame on top of its traceback."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at its traceback
        payloads.decode(payloads.Payload(payloads.PICKLE, data))
    assert caught.value.__traceback__ is not None
    return caught.value.with_traceback(caught.value.__traceback__.tb_next)


def users_own() -> None:
    raise ValueError("mine")


def users_chain() -> None:
    try:
        payloads.decode(payloads.Payload(payloads.PICKLE, pickle.dumps(Bomb(users_own))))
    except ValueError as error:
        raise KeyError("later") from error


def test_the_meshs_frames_above_the_users_are_cut() -> None:
    text = users_traceback(raised_below_the_mesh(pickle.dumps(Bomb(users_own))))
    frames = [line for line in text.splitlines() if line.startswith("  File")]
    assert len(frames) == 1
    assert "in users_own" in frames[0]


def test_causes_stay() -> None:
    text = users_traceback(raised_below_the_mesh(pickle.dumps(Bomb(users_chain))))
    assert text.index("ValueError: mine") < text.index("direct cause") < text.index("KeyError: 'later'")


def test_an_error_of_the_mesh_itself_keeps_its_frames() -> None:
    assert "in decode" in users_traceback(raised_below_the_mesh(b"no pickle"))


def test_codes_that_grpc_does_not_define_become_unknown() -> None:
    assert status_code(5) is grpc.StatusCode.NOT_FOUND
    assert status_code(77) is grpc.StatusCode.UNKNOWN
    error = to_exception(Outcome(77, "from a mesh of the future"))
    assert isinstance(error, GrpcStatusError)
    assert error.code is grpc.StatusCode.UNKNOWN


class ExitingError(Exception):
    """Ends the process when it is looked at, as far as it depends on it."""

    def __str__(self) -> str:
        raise SystemExit(1)

    def __reduce__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


def test_an_exception_whose_own_code_tries_to_end_the_process_is_reported_by_name() -> None:
    outcome = failed_in_user_code(ExitingError())
    assert (outcome.message, outcome.exception_type, outcome.pickled_exception) == ("ExitingError", "ExitingError", b"")
    assert isinstance(to_exception(outcome), RemoteError)


class NamelessError(Exception):
    """Raises where it is not expected."""

    @property
    def __notes__(self) -> list[str]:
        raise SystemExit(1)

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise SystemExit(1)


def test_an_exception_that_cannot_be_described_at_all_has_an_outcome() -> None:
    assert "NamelessError" in failed_in_user_code(NamelessError()).message
