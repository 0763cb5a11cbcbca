"""Every error a caller of the mesh can meet: its gRPC status code, whether it may be retried, and what to do next."""

import asyncio
import concurrent.futures
import difflib
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc
from google.protobuf.message import Message

from mesh.cluster.ray_core import RayActorError, TaskCancelledError
from mesh.rpc.status_details import DETAILS_KEY, decode_details, encode_details
from mesh.settings import settings


class MeshException(Exception):
    """Root of all errors raised by the mesh itself. Errors of user code keep their own types."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    """The status a gRPC client sees."""

    is_retry_safe: bool = False
    """Whether the same call may be sent again without the risk of executing it twice."""

    def __init__(self, message: str = "") -> None:
        # Not super().__init__: the sibling bases of some subclasses read their first argument as something else.
        self.args = (message,)

    @property
    def message(self) -> str:
        """What went wrong and what to do next, without a traceback."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the constructor with `args`, which fails for constructors that take anything else
        # than the message. Here the constructor is never called again.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[MeshException], args: tuple[Any, ...], state: dict[str, Any]) -> MeshException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BackPressureError(MeshException):
    """The caller's queue for a deployment is full. The call was not sent."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    is_retry_safe = True

    def __init__(
        self,
        *,
        num_queued_requests: int,
        max_queued_requests: int,
        status_code: int | None = None,
        retry_after_s: float | None = None,
        usage: str = "",
    ) -> None:
        """`status_code`: None is 503. `usage`: how busy the replicas are, in words."""
        because = f": {usage}" if usage else ""
        super().__init__(
            f"Request dropped due to backpressure (num_queued_requests={num_queued_requests}, "
            f"max_queued_requests={max_queued_requests}){because}. Retry later; to take more load, raise num_replicas, "
            "max_ongoing_requests or max_queued_requests of the deployment."
        )
        self.num_queued_requests = num_queued_requests
        self.max_queued_requests = max_queued_requests
        self.has_own_answer = status_code is not None or retry_after_s is not None
        """Whether the next two were chosen: then every HTTP dialect answers with them."""
        self.status_code = 503 if status_code is None else status_code
        """HTTP status: 503 or 429."""
        self.retry_after_s = retry_after_s
        """The Retry-After of the HTTP answer, in seconds."""


class QueueTimeoutError(BackPressureError):
    """The call waited longer for a free place than its `queue_timeout_s`. It was not sent."""

    def __init__(
        self,
        waited: str,
        timeout_s: float,
        *,
        num_queued_requests: int,
        max_queued_requests: int,
        status_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """`waited`: how long and for what, as in "waited 3.0 s for a free place"."""
        super().__init__(
            num_queued_requests=num_queued_requests,
            max_queued_requests=max_queued_requests,
            status_code=status_code,
            retry_after_s=retry_after_s,
        )
        self.args = (f"The call was not sent: it {waited}. Its queue_timeout_s is {timeout_s:g}. Retry later.",)


class DeploymentUnavailableError(MeshException):
    """The deployment has no replica and will not get one."""

    code = grpc.StatusCode.UNAVAILABLE
    is_retry_safe = True

    def __init__(self, deployment_id: str, reason: str = "") -> None:
        """`deployment_id`: "APPLICATION#DEPLOYMENT"."""
        because = f": {reason.rstrip('.')}" if reason else ""
        app, _, name = str(deployment_id).rpartition("#")
        super().__init__(
            f"Deployment {name!r} of application {app!r} is unavailable{because}. "
            "See `mesh status` for why it failed, then deploy it again."
        )
        self.deployment_id = deployment_id


class ReplicaUnavailableError(MeshException, RayActorError):  # type: ignore[misc]
    """The replica that held the call is gone.

    Code written for Ray Serve catches it as `ray.exceptions.RayActorError`.
    """

    code = grpc.StatusCode.UNAVAILABLE
    actor_id = None
    actor_init_failed = False
    preempted = False

    def __init__(self, replica_id: str, reason: str = "", *, maybe_executed: bool = True) -> None:
        because = f": {reason.rstrip('.')}" if reason else ""
        advice = (
            "The call may have been executed; retry it only if it is idempotent."
            if maybe_executed
            else "The call was not executed; retry it."
        )
        super().__init__(f"Replica {replica_id} is unavailable{because}. {advice}")
        self.replica_id = replica_id
        self.error_msg = self.message
        self.maybe_executed = maybe_executed
        self.is_retry_safe = not maybe_executed


class DisconnectedError(MeshException):
    """This process left the mesh, or the handle was shut down, before the call was sent."""

    code = grpc.StatusCode.UNAVAILABLE
    is_retry_safe = True

    def __init__(
        self,
        message: str = (
            "This process left the mesh, or the handle was shut down, before the call was sent. "
            "Make the call again to reconnect."
        ),
    ) -> None:
        super().__init__(message)


class CancelReason(Enum):
    """Why a call was cancelled. The numbers are those of CancelReason in replica.proto."""

    UNSPECIFIED = 0
    """User code raised the cancellation itself, or the peer sent a reason that this version does not know."""
    CLIENT = 1
    """The client went away, or the caller cancelled the response."""
    PARENT = 2
    """The request whose code made the call was cancelled."""
    DEADLINE = 3
    """The caller's deadline passed."""
    LINK_BROKEN = 4
    """The connection between the caller and the replica ended."""
    DRAIN = 5
    """The replica drains and could not wait any longer."""

    @classmethod
    def _missing_(cls, value: object) -> "CancelReason":
        return cls.UNSPECIFIED


_CANCEL_TEXTS = {
    CancelReason.UNSPECIFIED: "The request was cancelled.",
    CancelReason.CLIENT: "The request was cancelled by its client.",
    CancelReason.PARENT: "The request was cancelled because the request that made it was cancelled.",
    CancelReason.DEADLINE: "The request was cancelled because its deadline passed.",
    CancelReason.LINK_BROKEN: "The request was cancelled because the connection to its caller broke.",
    CancelReason.DRAIN: "The request was cancelled because the replica drains.",
}


class RequestCancelledError(
    MeshException,
    TaskCancelledError,  # type: ignore[misc]
    concurrent.futures.CancelledError,
    asyncio.CancelledError,
):
    """The call was cancelled; `reason` says why.

    One class for everything that code written for either generation of the original API may catch, in async and in
    sync code. Mind that `except Exception` catches it too, unlike a plain asyncio.CancelledError.
    """

    code = grpc.StatusCode.CANCELLED
    task_id = None
    error_message = None
    reason = CancelReason.UNSPECIFIED

    def __init__(self, message: str | None = None, *, reason: CancelReason = CancelReason.UNSPECIFIED) -> None:
        """Without a message, the text is that of the reason."""
        super().__init__(_CANCEL_TEXTS[reason] if message is None else message)
        self.reason = reason


class DeadlineExceededError(MeshException, TimeoutError):
    """The deadline of the call, or of a call it belongs to, has passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(
        self, message: str = "The deadline of the request has passed. Allow more time or ask for less work."
    ) -> None:
        super().__init__(message)

    @classmethod
    def after_waiting(cls, waited: str) -> Self:
        """`waited`: how long and for what, as in "waited 3.0 s for a free place"; empty if it did not wait."""
        return cls(f"The deadline of the request has passed: it {waited}.") if waited else cls()


class GrpcStatusError(MeshException):
    """A gRPC status other than OK: set by user code on its context, or answered by a service that was called.

    `with_details` makes one with details that clients of any language can read; callers find them in `error_details`.
    """

    def __init__(
        self, code: grpc.StatusCode, details: object = "", trailers: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        if not isinstance(code, grpc.StatusCode):
            raise TypeError(f"A gRPC status has a grpc.StatusCode, not {code!r}.")
        if code is grpc.StatusCode.OK:
            raise ValueError("A GrpcStatusError is an error, got StatusCode.OK: return the response instead.")
        details = details_text(details)
        super().__init__(f"{code.name}: {details}" if details else code.name)
        self.code = code
        self.details = details
        self.trailers = tuple((key, value.encode() if isinstance(value, str) else value) for key, value in trailers)

    @classmethod
    def with_details(cls, code: grpc.StatusCode, message: str, *details: Message) -> Self:
        """A status with details: messages of google.rpc.error_details_pb2 such as BadRequest, or any others.

        They reach callers and clients as `google.rpc.Status`, also through other deployments. Raises TypeError for what
        is not a message, and ValueError for more than clients take, about 7 KiB.
        """
        limit = settings().payload.error_details_max_chars
        if len(message) > limit:
            raise ValueError(
                f"The message of an error is at most {limit} characters (MESH_ERROR_DETAILS_MAX_CHARS), this one has "
                f"{len(message)}: clients take details only with the whole message."
            )
        error = cls(code, message)
        error.trailers = ((DETAILS_KEY, encode_details(code.value[0], message, details)),)
        return error

    @property
    def error_details(self) -> tuple[Message, ...]:
        """What `with_details` was given here or by a callee; one of an unknown type is a google.protobuf.Any."""
        return decode_details(self.trailers)


def details_text(details: object) -> str:
    """Status details as text: exceptions are often given as they are."""
    return "" if details is None else str(details)


class UnserializableError(MeshException, TypeError):
    """An argument or a result cannot be pickled."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class PayloadTooLargeError(MeshException):
    """An argument, result or stream item is larger than a link carries. It was not sent."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The {what} of {size_bytes} bytes exceeds the limit of {limit_bytes} bytes. Send it as a numpy array, "
            "which travels outside of the message, or as a stream of smaller items; or raise MESH_MESSAGE_MAX_BYTES in "
            "all processes."
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class RemoteError(MeshException):
    """Stands for an exception of user code that could not be pickled, or not be unpickled here."""

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.remote_message = message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.remote_traceback}" if self.remote_traceback else self.message


class ControllerUnavailableError(MeshException):
    """The control plane did not answer in time."""

    code = grpc.StatusCode.UNAVAILABLE
    is_retry_safe = True

    @classmethod
    def after(cls, waited_s: float, reason: str) -> Self:
        """`reason`: what the last attempt met."""
        return cls(
            f"The controller of the mesh did not answer for {waited_s:.0f} s ({reason}). "
            "`mesh logs` shows what it logged; it restarts by itself where Ray can place it."
        )


class ChangeConflictError(MeshException):
    """The application was changed after this change of it was computed. Nothing is changed."""

    code = grpc.StatusCode.ABORTED


# The names of Ray Serve, so that an application that comes from there changes one import.
RayServeException = MeshException
gRPCStatusError = GrpcStatusError


if not TYPE_CHECKING:  # type checkers know the names

    def __getattr__(name: str) -> NoReturn:
        errors = [each for each, value in globals().items() if isinstance(value, type) and value.__module__ == __name__]
        close = difflib.get_close_matches(name, errors, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(sorted(errors))}."
        # Without the name, for which Python would guess a second time where it shows the error.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{guess}", name=None)
