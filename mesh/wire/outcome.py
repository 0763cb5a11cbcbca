"""How a call ended, and its translation to and from exceptions and status messages."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType

import grpc

from mesh.cluster import ray_core
from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    GrpcStatusError,
    MeshException,
    RemoteError,
    RequestCancelledError,
)
from mesh.rpc.status_codes import INTERNAL, OK, status_code
from mesh.settings import settings
from mesh.v1 import common_pb2
from mesh.wire.payload import Payload

Trailers = tuple[tuple[str, bytes], ...]
Times = tuple[int, int]
"""Durations of a call at its replica, in microseconds: until user code began, and from there to its end."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN_DIRECTORIES = tuple(os.path.join(_PACKAGE, part, "") for part in ("replica", "wire", "link", "web"))
"""Where the frames between the wire and the user's code are."""
_NOTE_HEADER = "Remote traceback:\n"
_TRACEBACK_MAX_CHARS = 256 * 1024
_PICKLED_EXCEPTION_MAX_BYTES = 4 * 1024 * 1024
"""A status is never cut into parts: one that holds whatever an exception may hold would block its link."""


@dataclass(frozen=True, slots=True)
class BackpressureAnswer:
    """What an HTTP client is answered whose call was refused by back-pressure.

    Of a deployment with a `backpressure_config`, or of an error of user code that says it.
    """

    status_code: int
    """HTTP status: 503 or 429."""
    retry_after_s: float | None = None
    """None: no Retry-After."""

    def to_message(self) -> common_pb2.BackpressureAnswer:
        return common_pb2.BackpressureAnswer(status_code=self.status_code, retry_after_s=self.retry_after_s)


USUAL_BACKPRESSURE = BackpressureAnswer(503, 1.0)
"""Where neither the deployment nor user code has chosen another answer."""


@dataclass(slots=True)
class Outcome:
    """Result of a call: a status and, for a unary call that went well, a payload."""

    code: int = OK
    """gRPC status code, as a number."""
    message: str = ""
    payload: Payload | None = None
    """The result; None for streams and failures."""
    trailers: Trailers = ()
    pickled_exception: bytes = b""
    """What user code raised, for callers that can unpickle it; empty if it is too large or cannot be pickled."""
    exception_type: str = ""
    """The class name of that exception."""
    remote_traceback: str = ""
    """The traceback of that exception in the replica, as text."""
    times: Times = (0, 0)
    backpressure: BackpressureAnswer | None = None
    """What HTTP clients get, where it was chosen."""

    @property
    def is_ok(self) -> bool:
        return self.code == OK


@dataclass(slots=True)
class FailedHere(Outcome):
    """Outcome of a call that an exception in the caller's own process has ended."""

    error: BaseException | None = None


def failed(error: MeshException) -> Outcome:
    """Outcome of a call that one of the mesh's own parts ended."""
    outcome = Outcome(code=error.code.value[0], message=str(error), exception_type=type(error).__name__)
    outcome.pickled_exception, _ = _pickled(error)
    outcome.backpressure = _backpressure_of(error)
    return outcome


def cancelled(reason: CancelReason) -> Outcome:
    """Outcome of a call that was cancelled; one whose deadline passed says that."""
    return failed(DeadlineExceededError() if reason is CancelReason.DEADLINE else RequestCancelledError(reason=reason))


def failed_here(error: BaseException) -> Outcome:
    """Outcome of a call that an exception of code in the caller's process has ended. Its caller gets the exception."""
    code = error.code if isinstance(error, MeshException) else grpc.StatusCode.INTERNAL
    return FailedHere(code.value[0], describe(error), error=error)


def failed_in_user_code(error: BaseException) -> Outcome:
    """Outcome of a call in which user code raised.

    The code is the exception's own where it is one of the mesh's (a child's back-pressure stays back-pressure), else
    INTERNAL. The exception travels pickled where it survives a round trip; its type name and traceback always do.
    Never raises: whatever the exception is, its call has to end.
    """
    try:
        return _described(error)
    except BaseException as flaw:  # what an exception's class defines is the user's code as well
        name = type(error).__qualname__
        text = f"{name}, which cannot be described: its class raised {type(flaw).__qualname__}"
        return Outcome(code=INTERNAL, message=text, exception_type=name)


def _described(error: BaseException) -> Outcome:
    code = error.code if isinstance(error, MeshException) else None
    if not isinstance(code, grpc.StatusCode) or code is grpc.StatusCode.OK:
        code = grpc.StatusCode.INTERNAL
    trailers = error.trailers if isinstance(error, GrpcStatusError) else ()
    text = error.details if isinstance(error, GrpcStatusError) else describe(error)
    pickled, reason = _pickled(error)
    note = f"\nIt arrives as RemoteError because it cannot be pickled: {reason}" if reason else ""
    return Outcome(
        code=code.value[0],
        message=as_utf8(text[: settings().payload.error_details_max_chars]),
        trailers=trailers,
        pickled_exception=pickled,
        exception_type=type(error).__qualname__,
        remote_traceback=as_utf8(users_traceback(error)[:_TRACEBACK_MAX_CHARS] + note),
        backpressure=_backpressure_of(error),
    )


def to_exception(outcome: Outcome) -> BaseException:
    """The exception a Python caller gets: the original with its remote traceback as a note, or the nearest of ours."""
    if isinstance(outcome, FailedHere) and outcome.error is not None:
        return outcome.error
    error = _unpickled(outcome)
    if error is None:
        return _by_code(outcome)
    if outcome.remote_traceback:
        with contextlib.suppress(Exception):  # a class may forbid setting attributes
            error.add_note(f"{_NOTE_HEADER}{outcome.remote_traceback.rstrip()}")
    return error


def has_remote_traceback(error: BaseException) -> bool:
    """Whether the exception came from another process by `to_exception`."""
    return any(str(note).startswith(_NOTE_HEADER) for note in getattr(error, "__notes__", ()))


def write_status(outcome: Outcome, message: common_pb2.Status) -> None:
    """Into an empty message. What is not UTF-8 is replaced."""
    message.code = outcome.code
    message.message = as_utf8(outcome.message)
    for key, value in outcome.trailers:
        message.trailers.add(key=key, value=value)
    if outcome.exception_type:
        message.pickled_exception = outcome.pickled_exception
        message.exception_type = as_utf8(outcome.exception_type)
        message.remote_traceback = as_utf8(outcome.remote_traceback)
    if outcome.backpressure is not None:
        message.backpressure.CopyFrom(outcome.backpressure.to_message())


def read_status(message: common_pb2.Status, payload: Payload | None) -> Outcome:
    """The outcome that `write_status` has written, with its payload."""
    return Outcome(
        message.code,
        message.message,
        payload,
        tuple((entry.key, entry.value) for entry in message.trailers),
        message.pickled_exception,
        message.exception_type,
        message.remote_traceback,
        backpressure=read_answer(message.backpressure) if message.HasField("backpressure") else None,
    )


def read_answer(message: common_pb2.BackpressureAnswer) -> BackpressureAnswer:
    """The reverse of `BackpressureAnswer.to_message`."""
    return BackpressureAnswer(message.status_code, message.retry_after_s if message.HasField("retry_after_s") else None)


def users_traceback(error: BaseException) -> str:
    """The traceback as text, causes included, without the mesh's own frames above the user's code."""
    text = traceback.TracebackException.from_exception(error)
    _cut_own_frames(text)
    return "".join(text.format())


def describe(error: BaseException) -> str:
    """Type and text of an exception, as callers see them, and as any message can carry them."""
    name = type(error).__qualname__
    # A RemoteError's text holds a traceback, which is nothing for status details.
    text = error.message if isinstance(error, RemoteError) else error
    try:
        return as_utf8(f"{name}: {text}")
    except BaseException:  # the user's __str__
        return as_utf8(name)


def as_utf8(text: str) -> str:
    """Escapes lone surrogates, as in names of files that are not in UTF-8: neither protobuf nor Ray can encode them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cut_own_frames(text: traceback.TracebackException) -> None:
    """Those of its causes too, of which there may be more than Python allows calls below each other."""
    found: list[traceback.TracebackException | None] = [text]
    seen: set[int] = set()
    while found:
        each = found.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        own = list(itertools.takewhile(lambda frame: frame.filename.startswith(_OWN_DIRECTORIES), each.stack))
        # An error that is the mesh's own from top to bottom keeps its frames: there is nothing else to look at.
        if len(own) < len(each.stack):
            del each.stack[: len(own)]
        found += (each.__cause__, each.__context__, *(each.exceptions or ()))


def _backpressure_of(error: BaseException) -> BackpressureAnswer | None:
    if not isinstance(error, BackPressureError) or not error.has_own_answer:
        return None
    return BackpressureAnswer(error.status_code, error.retry_after_s)


def _pickled(error: BaseException) -> tuple[bytes, str]:
    """The exception's pickle, or nothing and the reason if it could not be read back."""
    reason = ""
    for dumps in (pickle.dumps, ray_core.cloudpickle.dumps, _dumps_state):
        try:
            data: bytes = dumps(error)
            if len(data) > _PICKLED_EXCEPTION_MAX_BYTES:
                return b"", f"it has {len(data)} bytes, and the limit is {_PICKLED_EXCEPTION_MAX_BYTES}"
            if dumps is pickle.dumps and b"__main__" in data:
                continue
            pickle.loads(data)
        except BaseException as flaw:  # from __reduce__ or __init__: the type name and traceback still travel
            reason = reason or describe(flaw)
            continue
        return data, ""
    return b"", reason


def _dumps_state(error: BaseException) -> bytes:
    """The pickle of an exception that is read back without a call of its own constructor.

    Exceptions are pickled as the call of their class with `args`, which fails if `__init__` takes other arguments.
    """
    if isinstance(type(error).__reduce__, FunctionType) or isinstance(type(error).__reduce_ex__, FunctionType):
        raise TypeError("its class decides itself how it is pickled")
    data: bytes = ray_core.cloudpickle.dumps(_PickledException(type(error), error.__reduce__()[1], vars(error)))  # type: ignore[arg-type]
    return data


class _PickledException:
    """Reads back as the exception that it was made of."""

    def __init__(self, cls: type[BaseException], args: tuple[object, ...], attributes: dict[str, object]) -> None:
        self._parts = cls, args, attributes

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
        return _restored, self._parts


def _restored(cls: type[BaseException], args: tuple[object, ...], attributes: dict[str, object]) -> BaseException:
    error = cls.__new__(cls, *args)
    constructors = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    built_in = next(each for each in constructors if not isinstance(each, FunctionType))
    built_in(error, *args)
    vars(error).update(attributes)
    return error


def _unpickled(outcome: Outcome) -> BaseException | None:
    if not outcome.pickled_exception:
        return None
    try:
        error = pickle.loads(outcome.pickled_exception)
    except Exception:  # its class may not be importable here; the caller then gets a RemoteError
        return None
    # A SystemExit of the callee must not end its caller.
    return error if isinstance(error, Exception) else None


def _by_code(outcome: Outcome) -> BaseException:
    if outcome.exception_type:
        message = outcome.message.removeprefix(f"{outcome.exception_type}: ")
        return RemoteError(outcome.exception_type, message, outcome.remote_traceback)
    match status_code(outcome.code):
        case grpc.StatusCode.CANCELLED:
            return RequestCancelledError(outcome.message)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError(outcome.message)
        case code:
            return GrpcStatusError(code, outcome.message, outcome.trailers)
