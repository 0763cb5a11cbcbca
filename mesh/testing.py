"""For tests of user code: fake handles, and the context of a replica; the types of the fixture `mesh_app`.

docs/testing.md shows how they are used.

Nothing here needs Ray or a mesh. A fake handle is a real one whose router, instead of choosing a replica, passes calls
to what executes calls in a replica; only the link between the two is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn, cast

import grpc.aio

from mesh.context import REQUEST, ReplicaContext, Request, set_replica_context
from mesh.exceptions import CancelReason, MeshException
from mesh.handle import DeploymentHandle
from mesh.link.admission import Admission
from mesh.link.callee_link import IncomingCall
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.local.mesh_app import MeshApp, RunMeshApp
from mesh.options import option_checks
from mesh.options.keyword_advice import with_keyword_advice
from mesh.replica.executor import Executor
from mesh.replica.grpc_context import GrpcContext
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload
from mesh.wire.request_context import RequestContext, new_request_id

__all__ = ["FakeHandle", "MeshApp", "RunMeshApp", "grpc_context", "replica_context"]

_THREADS_MAX = 100


class FakeHandle(DeploymentHandle[Any]):
    """A handle for tests: its calls execute the methods of `target`, an object or a function, in this process.

    They do so as in a replica: arguments and results are pickled, `async def` methods share an event loop of their own,
    `def` methods run in threads, `options(stream=True)` calls generators, errors come back with their traceback as a
    note, and deadlines, cancels and model ids reach the method. There is no limit on ongoing calls.

        shop = Shop(FakeHandle(FakePrices()))
        assert asyncio.run(shop.buy("pear")) == 2.5
    """

    def __init__(self, target: object) -> None:
        if isinstance(target, type):
            raise TypeError(f"FakeHandle takes an object, not its class: write FakeHandle({target.__name__}(...)).")
        name = getattr(target, "__name__", type(target).__name__)
        router = _LocalRouter(DeploymentKey("tests", name), MethodTable(target, {}))
        super().__init__(name, "tests", _routers=_OneRouter(router))
        self._family.connect()


@contextmanager
@with_keyword_advice
def replica_context(
    *,
    app_name: str = "default",
    deployment: str = "",
    replica_id: str = "test",
    multiplexed_model_id: str = "",
    request_id: str = "",
    timeout_s: float | None = None,
) -> Iterator[Request]:
    """Let code behave as in a replica that serves a request: constructors, methods, and loaders of models.

    `mesh.get_replica_context()`, `mesh.context.current_request()` and `mesh.get_multiplexed_model_id()` answer with
    these values, in this thread and in the tasks that it starts; `timeout_s` is the time until the request's deadline.
    """
    context = RequestContext(request_id or new_request_id(), app=app_name, multiplexed_model_id=multiplexed_model_id)
    request = Request(context, _deadline_at_s(timeout_s))
    request_before = REQUEST.get()
    replica_before = set_replica_context(ReplicaContext(app_name, deployment, replica_id))
    REQUEST.set(request)
    try:
        yield request
    finally:
        set_replica_context(replica_before)
        # Without a token: an async fixture may end in another context than the one it began in.
        REQUEST.set(request_before)


@with_keyword_advice
def grpc_context(
    metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
    *,
    peer: str = "ipv4:127.0.0.1:1",
    timeout_s: float | None = None,
) -> grpc.aio.ServicerContext[Any, Any]:
    """The context that a method of a gRPC service gets, with this metadata of the client.

    After the call it has the code, details and trailing metadata that the method has set; `abort` raises
    `mesh.exceptions.GrpcStatusError`.
    """
    entries = metadata.items() if isinstance(metadata, Mapping) else metadata
    request = Request(deadline_at_s=_deadline_at_s(timeout_s))
    return cast("grpc.aio.ServicerContext[Any, Any]", GrpcContext(request, entries, peer))


def _deadline_at_s(timeout_s: float | None) -> float | None:
    option_checks.seconds("timeout_s", timeout_s)
    return None if timeout_s is None else time.monotonic() + timeout_s


class _OneRouter:
    """Where a fake handle gets its router."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def use(self, key: DeploymentKey, user: object) -> Router:
        return self._router

    def leave(self, router: Router, user: object) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def __reduce__(self) -> NoReturn:
        raise MeshException("A FakeHandle cannot leave the process of its test: bind and send real handles only.")


class _LocalRouter(Router):
    """The router of one fake handle."""

    def __init__(self, key: DeploymentKey, methods: MethodTable) -> None:
        super().__init__(key, CallerIdentity("", "", "", b""), lambda router: None)
        counts = ReplicaCounts(key.app, key.name, Admission(_THREADS_MAX), set())
        self._link = _LocalLink(Executor(methods, _user_loop(), counts), self._finish)

    @property
    def has_replicas(self) -> bool:
        return True

    def submit(self, call: OutgoingCall) -> None:
        if self.start_deadline(call):
            self._link.send(call)


class _LocalCall(IncomingCall):
    """A call at its target; what it sends goes to its caller immediately."""

    __slots__ = ("outgoing",)

    def __init__(self, link: _LocalLink, outgoing: OutgoingCall) -> None:
        super().__init__(cast("Any", link), outgoing.call_id, outgoing.request, settings().payload.stream_credits)
        self.outgoing = outgoing

    def send_item(self, payload: Payload) -> None:
        if self.outgoing.state is CallState.SENT:
            self.outgoing.sink.on_item(payload)

    def send_initial_metadata(self, entries: Trailers) -> None:
        if self.outgoing.state is CallState.SENT:
            self.outgoing.sink.on_initial_metadata(entries)

    def set_compression(self, encoding: str, skips_next: bool) -> None:
        """What handles get is not compressed."""

    def grant(self, credits: int) -> None:
        if self.outgoing.state is CallState.SENT:
            self.outgoing.request_credit += credits
            self.outgoing.sink.on_credit()


class _LocalLink:
    """Both ends of a link in one object: the Carrier of calls on their way out, and the link of those that came in."""

    def __init__(self, executor: Executor, finish: Callable[[OutgoingCall, Outcome], None]) -> None:
        self._executor = executor
        self._finish = finish
        self._calls: dict[int, _LocalCall] = {}

    def send(self, outgoing: OutgoingCall) -> None:
        outgoing.state, outgoing.link = CallState.SENT, cast("Any", self)
        call = self._calls[outgoing.call_id] = _LocalCall(self, outgoing)
        call.running = self._executor.start(call)

    def send_item(self, outgoing: OutgoingCall, payload: Payload) -> None:
        call = self._calls.get(outgoing.call_id)
        if call is not None and call.running is not None:
            call.running.on_item(payload)

    def send_half_close(self, outgoing: OutgoingCall) -> None:
        call = self._calls.get(outgoing.call_id)
        if call is not None and call.running is not None:
            call.running.on_half_close()

    def send_credit(self, outgoing: OutgoingCall, credits: int) -> None:
        call = self._calls.get(outgoing.call_id)
        if call is not None and call.running is not None:
            call.running.on_credit(credits)

    def cancel(self, outgoing: OutgoingCall, reason: CancelReason) -> None:
        call = self._calls.get(outgoing.call_id)
        if call is not None and call.cancel_reason is None:
            call.cancel_reason = reason
            if call.running is not None:
                call.running.cancel(reason)

    def finish(self, call: _LocalCall, outcome: Outcome) -> None:
        del self._calls[call.call_id]
        call.running = None
        if call.outgoing.state is CallState.SENT:
            self._finish(call.outgoing, outcome)


@cache
def _user_loop() -> UserLoop:
    """The user loop of all fake handles of this process."""
    return UserLoop(is_isolated=True, threads_max=_THREADS_MAX, name="mesh-fake-handles")
