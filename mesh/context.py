"""The context of user code: the request it serves and the replica it runs in."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from mesh.cluster.keys import DeploymentKey
from mesh.exceptions import CancelReason, MeshException
from mesh.wire.identity import Identity
from mesh.wire.request_context import RequestContext


class Child(Protocol):
    """A call made while serving a request; it is cancelled with the request."""

    def cancel(self, reason: CancelReason) -> object: ...


@dataclass(slots=True, eq=False)
class Request:
    """The request that the current code serves."""

    context: RequestContext = field(default_factory=RequestContext)
    """As it came from the caller; only `name_model` exchanges it."""
    deadline_at_s: float | None = None
    """time.monotonic() instant at which the caller stops waiting."""
    children: set[Child] = field(default_factory=set)
    """Unfinished calls made from here."""
    cancel_reason: CancelReason | None = None
    """Set once the request is cancelled."""
    grpc_context: Any = None
    """What the method that runs got as its `grpc_context`; None if it takes none, and when it has returned."""

    is_http_request = False
    """Whether it came by HTTP, to the web application or `__call__` of an ingress."""

    @property
    def is_cancelled(self) -> bool:
        """Whether its client has left, its deadline has passed, or its caller gave up; `cancel_reason` says which."""
        return self.cancel_reason is not None

    @property
    def request_id(self) -> str:
        """The id that all calls made for one client request share."""
        return self.context.request_id

    @property
    def route(self) -> str:
        """How the client request came in, for example the full name of its gRPC method; empty for calls of a handle."""
        return self.context.route

    @property
    def app(self) -> str:
        """The application that the client request was for."""
        return self.context.app

    @property
    def multiplexed_model_id(self) -> str:
        """The model that the call is for; empty: none."""
        return self.context.multiplexed_model_id

    @property
    def identity(self) -> Identity | None:
        """The client that the gateway has authenticated; None where it does not ask, and for calls of programs."""
        return self.context.identity

    @property
    def tenant(self) -> str:
        """For whom the request is, as its client or the caller has said; empty if none has."""
        return self.context.tenant

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline (not below 0), None without one."""
        return None if self.deadline_at_s is None else max(0.0, self.deadline_at_s - time.monotonic())

    def without_caller(self) -> Request:
        """For work that several requests share: only what all of them have in common, application and model id."""
        return Request(RequestContext(app=self.app, multiplexed_model_id=self.multiplexed_model_id))

    def outliving(self) -> Request:
        """For work that goes on when this ends: the same without deadline and cancel."""
        return Request(self.context)

    def cancel(self, reason: CancelReason) -> None:
        """Cancel all calls made from here, and each that is made later as soon as it is made."""
        self.cancel_reason = reason
        for child in list(self.children):
            child.cancel(CancelReason.PARENT)


REQUEST: ContextVar[Request | None] = ContextVar("mesh_request", default=None)


def current_request() -> Request | None:
    """The request that the current code serves; None outside of one."""
    return REQUEST.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeRequestContext:
    """The current request with the field names of Ray Serve. `Request` explains each; empty where it has none."""

    route: str = ""
    request_id: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    grpc_context: Any = None
    is_http_request: bool = False


def _get_serve_request_context() -> ServeRequestContext:
    """What `current_request` knows, for code that comes from Ray Serve; empty outside of a request.

    A call of a program, which is for no client, is for the application that serves it.
    """
    request = REQUEST.get()
    if request is None:
        return ServeRequestContext()
    return ServeRequestContext(
        route=request.route,
        request_id=request.request_id,
        app_name=request.app or (get_replica_context().app_name if in_replica() else ""),
        multiplexed_model_id=request.multiplexed_model_id,
        grpc_context=request.grpc_context,
        is_http_request=request.is_http_request,
    )


def name_model(model_id: str) -> None:
    """Give the current request this model id: for protocols that name the model in the message."""
    request = REQUEST.get()
    if request is not None and request.context.multiplexed_model_id != model_id:
        request.context = request.context.for_child(model_id)


def outlive_request() -> None:
    """Let the current task go on when the request that started it ends: deadline and cancel apply no longer.

    For background work; to be called first in the task of that work. Calls made there, and in tasks that it starts,
    still carry on the request id, route and application.
    """
    request = REQUEST.get()
    if request is not None:
        REQUEST.set(request.outliving())


class ReplicaId(str):
    """The id of a replica: a string that also names its deployment."""

    __slots__ = ("deployment_id",)

    deployment_id: DeploymentKey
    """`name` and `app_name` of its deployment."""

    def __new__(cls, unique_id: str, deployment_id: DeploymentKey) -> ReplicaId:
        made = super().__new__(cls, unique_id)
        made.deployment_id = deployment_id
        return made

    @property
    def unique_id(self) -> str:
        """The id as a plain string."""
        return str.__str__(self)

    def __reduce__(self) -> tuple[type[ReplicaId], tuple[str, DeploymentKey]]:
        return ReplicaId, (self.unique_id, self.deployment_id)


NO_RANKS = (
    "Replicas of the mesh have no ranks: they come and go one by one, so a rank would change under the code that has "
    "read it. `mesh.get_replica_context().replica_tag` tells them apart; where each is to have a share of its own, "
    "bind one deployment for each share."
)
"""Advice for code that asks for one."""

_RANKS = frozenset({"rank", "world_size", "gang_context"})


@dataclass(frozen=True, slots=True)
class ReplicaContext:
    """The replica in which the current code runs."""

    app_name: str
    """The application of the deployment."""
    deployment: str
    """Its name."""
    replica_tag: str
    """The id of the replica as `mesh status` shows it."""
    max_ongoing_requests: int = 5
    """As it is when the context is asked for; a later `get_replica_context()` has the number of then."""
    code_version: str = ""
    """The version of the deployment that it runs."""
    get_servable_object: Callable[[], Any] = lambda: None
    """For `servable_object`."""

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> NoReturn:
            advice = f", which Ray Serve has. {NO_RANKS}" if name in _RANKS else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{advice}")

    @property
    def replica_id(self) -> ReplicaId:
        """`replica_tag` with the name of the deployment."""
        return ReplicaId(self.replica_tag, DeploymentKey(self.app_name, self.deployment))

    @property
    def servable_object(self) -> Any:
        """The instance of the user's class, incomplete while its constructor runs; None before."""
        return self.get_servable_object()


_replica: ReplicaContext | None = None
_LOCAL_REPLICA: ContextVar[ReplicaContext | None] = ContextVar("mesh_local_replica", default=None)
"""One of several replicas in this process."""


def set_replica_context(context: ReplicaContext | None) -> ReplicaContext | None:
    """Make this process a replica. Called once, before any user code runs. Returns what it was before."""
    global _replica
    before, _replica = _replica, context
    return before


def put_replica_into(context: Context, replica: ReplicaContext) -> None:
    """For one of several replicas in this process: code that runs in a copy of the context runs in that replica."""
    context.run(_LOCAL_REPLICA.set, replica)


def local_replica() -> ReplicaContext | None:
    """The replica in which this code runs, if it is one of several in this process."""
    return _LOCAL_REPLICA.get()


def in_replica() -> bool:
    """Whether this code runs in a replica, also of a local application."""
    return _replica is not None or _LOCAL_REPLICA.get() is not None


def _get_internal_replica_context() -> ReplicaContext | None:
    """The replica in which this code runs, for code that comes from Ray Serve; None outside of one."""
    return _LOCAL_REPLICA.get() or _replica


def get_replica_context() -> ReplicaContext:
    """The replica in which this code runs. Raises MeshException outside of one."""
    replica = _get_internal_replica_context()
    if replica is None:
        raise MeshException(
            "get_replica_context() works only inside a deployment's code: call it in its constructor or methods."
        )
    return replica
