"""The handle of a deployment: what users call it with."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypedDict, Unpack, overload

from typing_extensions import TypeVar

from mesh.caller.call_arguments import PendingArguments, UpstreamError, is_pending
from mesh.caller.call_future import CallFuture, ItemStream
from mesh.caller.handle_family import HandleFamily, Routers
from mesh.caller.init_options import InitOptions, handle_source
from mesh.caller.request_counter import RequestCounter
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.cluster import ray_core
from mesh.context import REQUEST, Request
from mesh.exceptions import CancelReason, MeshException
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.options import option_checks
from mesh.options.calls.hedge_option import HedgePolicy, hedge_policy
from mesh.options.calls.retry_option import RetryPolicy, retry_policy
from mesh.options.default import DEFAULT
from mesh.options.keyword_advice import with_keyword_advice
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import failed, failed_in_user_code
from mesh.wire.payload import encode
from mesh.wire.request_context import RequestContext, new_request_id

T = TypeVar("T", default=Any)
Response_co = TypeVar(
    "Response_co",
    bound=DeploymentResponse[Any] | DeploymentResponseGenerator[Any],
    covariant=True,
    default=DeploymentResponse[Any],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleOptions:
    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    stream: bool = False
    timeout_s: float | None = None
    """Deadline of each call, from its start; the deadline of the request being served may be earlier."""
    idempotent: bool = False
    """Unary calls may be sent to another replica even when the first may have executed them."""
    retry: RetryPolicy | Mapping[str, object] | None = None
    """When unary calls that failed are sent again, to another replica if there is one."""
    queue_timeout_s: float | None = None
    """How long each call may wait for a free place; None: as long as the deployment says."""
    hedge_after_s: HedgePolicy | float | str | None = None
    """When a second copy of an idempotent unary call is sent to another replica: seconds, or "p95"."""
    session_id: str = ""
    """Calls with the same one go to the same replica as long as it has a free place; "": to any."""
    _prefer_local_routing: bool = False

    def __post_init__(self) -> None:
        option_checks.name_text("method_name", self.method_name)
        option_checks.name_text("multiplexed_model_id", self.multiplexed_model_id)
        option_checks.name_text("session_id", self.session_id)
        option_checks.seconds("timeout_s", self.timeout_s)
        if self.queue_timeout_s is not None:
            option_checks.number("queue_timeout_s", self.queue_timeout_s, may_equal=False)
        object.__setattr__(self, "retry", retry_policy(self.retry))
        object.__setattr__(self, "hedge_after_s", hedge_policy(self.hedge_after_s))
        if self.hedge_after_s is not None and not self.idempotent:
            raise ValueError("hedge_after_s may execute a call twice: it needs idempotent=True as well.")


class CallOptions(TypedDict, total=False):
    """For type checkers: the options of a handle that leave the kind of its responses as it is."""

    method_name: str | DEFAULT
    multiplexed_model_id: str | DEFAULT
    timeout_s: float | DEFAULT | None
    idempotent: bool | DEFAULT
    retry: Mapping[str, object] | DEFAULT | None
    queue_timeout_s: float | DEFAULT | None
    hedge_after_s: float | str | DEFAULT | None
    session_id: str | DEFAULT
    use_new_handle_api: bool | DEFAULT
    _prefer_local_routing: bool | DEFAULT
    _source: object


class DeploymentHandle(Generic[T, Response_co]):
    """Calls one deployment: from drivers, tasks, actors and other deployments, from any thread and event loop.

    `mesh.run` and `mesh.get_deployment_handle` return one; bound deployments receive one in their constructor:

        handle = mesh.get_deployment_handle("Dictionary", "default")
        word = await handle.translate.remote("chien")  # in an event loop
        word = handle.translate.remote("chien").result(timeout_s=5)  # in a thread without one
        async for letter in handle.spell.options(stream=True).remote("ox"):
            ...

    `handle.NAME` is a handle for the method NAME, `handle.remote` calls `__call__`. A DeploymentResponse can be awaited
    and has `result()`; a DeploymentResponseGenerator (`stream=True`) is iterated with `async for` or `for`; the handle
    itself cannot be awaited. Handles can be pickled and passed as arguments.

    For type checkers only: `T` may name the class of the deployment, and `Response_co` is what `remote` returns.
    """

    def __init__(
        self,
        deployment_name: str,
        app_name: str,
        *,
        handle_options: HandleOptions | None = None,
        _routers: Routers | None = None,
    ) -> None:
        option_checks.name_text("deployment_name", deployment_name)
        option_checks.name_text("app_name", app_name)
        self._key = DeploymentKey(app_name, deployment_name)
        self._options = handle_options or HandleOptions()
        self._family = HandleFamily(self._key, _routers)

    @property
    def deployment_name(self) -> str:
        return self._key.name

    @property
    def app_name(self) -> str:
        return self._key.app

    @property
    def deployment_id(self) -> DeploymentKey:
        return self._key

    @property
    def request_counter(self) -> RequestCounter:
        return self._family.request_counter

    @property
    def init_options(self) -> InitOptions:
        return InitOptions(_prefer_local_routing=self._options._prefer_local_routing, _source=handle_source())

    @property
    def is_initialized(self) -> bool:
        return self._family.router is not None

    @overload
    def options(
        self, *, stream: Literal[True], **others: Unpack[CallOptions]
    ) -> DeploymentHandle[T, DeploymentResponseGenerator[Any]]: ...
    @overload
    def options(
        self, *, stream: Literal[False], **others: Unpack[CallOptions]
    ) -> DeploymentHandle[T, DeploymentResponse[Any]]: ...
    @overload
    def options(
        self, *, stream: Literal[DEFAULT.VALUE] = ..., **others: Unpack[CallOptions]
    ) -> DeploymentHandle[T, Response_co]: ...
    @overload
    def options(self, *, stream: bool | DEFAULT, **others: Unpack[CallOptions]) -> DeploymentHandle[T, Any]: ...
    @with_keyword_advice
    def options(
        self,
        *,
        method_name: str | DEFAULT = DEFAULT.VALUE,
        multiplexed_model_id: str | DEFAULT = DEFAULT.VALUE,
        stream: bool | DEFAULT = DEFAULT.VALUE,
        timeout_s: float | DEFAULT | None = DEFAULT.VALUE,
        idempotent: bool | DEFAULT = DEFAULT.VALUE,
        retry: Mapping[str, object] | DEFAULT | None = DEFAULT.VALUE,
        queue_timeout_s: float | DEFAULT | None = DEFAULT.VALUE,
        hedge_after_s: float | str | DEFAULT | None = DEFAULT.VALUE,
        session_id: str | DEFAULT = DEFAULT.VALUE,
        use_new_handle_api: bool | DEFAULT = DEFAULT.VALUE,
        _prefer_local_routing: bool | DEFAULT = DEFAULT.VALUE,
        _source: object = DEFAULT.VALUE,
    ) -> DeploymentHandle[T, Any]:
        """Change options of a new handle, and keep the others as they are here.

        Args:
            method_name: The method to call.
            multiplexed_model_id: The model that the call needs.
            stream: The method is a generator; its items are sent as they are produced.
            timeout_s: Deadline of each call, in seconds from its start; None for none.
            idempotent: A unary call may be sent again even if a replica may have executed it.
            retry: `attempts`, the first included (3), `codes` after which a unary call is sent again
                (["UNAVAILABLE"]), and `budget`, the retries per call of this process (0.1).
            queue_timeout_s: How long each call may wait for a free place; None for what the deployment says.
            hedge_after_s: A second copy of an idempotent unary call goes to another replica after this many seconds,
                or after a percentile of the latest durations of the method, such as "p95"; the first answer counts.
            session_id: Calls with the same one go to the same replica as long as it has a free place.

        Returns: The new handle. This one is unchanged; both share their router.
        Raises: TypeError or ValueError for a wrong value, RuntimeError for `stream=True` in Ray Client.
        """
        del _source
        if use_new_handle_api is not DEFAULT.VALUE:
            warnings.warn("use_new_handle_api has no effect any more; leave it out.", stacklevel=2)
        if stream is True and ray_core.is_ray_client():
            raise RuntimeError(
                "Streaming DeploymentHandles are not currently supported when connected to a remote Ray cluster using "
                "Ray Client. Call the gateway instead."
            )
        given = {
            "method_name": method_name,
            "multiplexed_model_id": multiplexed_model_id,
            "stream": stream,
            "timeout_s": timeout_s,
            "idempotent": idempotent,
            "retry": retry,
            "queue_timeout_s": queue_timeout_s,
            "hedge_after_s": hedge_after_s,
            "session_id": session_id,
            "_prefer_local_routing": _prefer_local_routing,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not DEFAULT.VALUE}
        return self._derived(replace(self._options, **changes))

    def remote(self, *args: Any, **kwargs: Any) -> Response_co:
        """Call the method. Never waits for a replica.

        Responses of other calls, and object references, may be top-level arguments without being awaited.

        Returns: A DeploymentResponse, or with `stream=True` a DeploymentResponseGenerator. Errors of the call itself
            are raised by them, not here.
        Raises: UnserializableError for arguments that cannot be pickled, PayloadTooLargeError for too large ones,
            RuntimeError for a streaming response as an argument, MeshException if no mesh is running.
        """
        options = self._options
        router = self._family.router
        if router is None or router.is_closed:
            router = self._family.connect()
        next(self._family.request_counter.numbers)
        parent = REQUEST.get()
        pending = None
        if is_pending(args) or (kwargs and is_pending(kwargs.values())):
            pending = PendingArguments(self._key, args, kwargs)
        payload = None if pending else encode((args, kwargs), "arguments")
        request = CallRequest(
            options.method_name,
            payload,
            _context(parent, options.multiplexed_model_id),
            _deadline_at_s(parent, options.timeout_s),
            streams_response=options.stream,
            prefers_local=options._prefer_local_routing,
            is_idempotent=options.idempotent,
            queue_timeout_s=options.queue_timeout_s,
            retry=options.retry,  # type: ignore[arg-type]  # checked by HandleOptions
            session_id=options.session_id,
            hedge=None if options.stream else options.hedge_after_s,  # type: ignore[arg-type]  # the same
        )
        future = ItemStream(router, parent) if options.stream else CallFuture(router, parent)
        call = OutgoingCall(request, future)
        future.call = call
        if pending is None:
            io_thread().call(router.submit, call)
        else:
            io_thread().call(_submit_when_complete, router, call, pending)
        if parent is not None and parent.is_cancelled:
            future.cancel(CancelReason.PARENT)
        if isinstance(future, ItemStream):
            return DeploymentResponseGenerator(future, request.context.request_id)  # type: ignore[return-value]
        return DeploymentResponse(future, request.context.request_id)  # type: ignore[return-value]

    if not TYPE_CHECKING:  # for them a call is an error, as it is at run time

        def __call__(self, *args: object, **kwargs: object) -> NoReturn:
            name = self._options.method_name
            method = "" if name == "__call__" else f".{name}"
            raise TypeError(
                f"A handle is not called like a function: write handle{method}.remote(...), which returns a response "
                "to await or to ask for its result()."
            )

    def running_replicas_populated(self) -> bool:
        """Whether this process knows of a running replica. False before the first call."""
        router = self._family.router
        return router is not None and router.has_replicas

    def shutdown(self) -> None:
        """Fail the queued calls and close the links of this handle and of those derived from it.

        If other handles of this process use the same router, its calls and links stay. A later call reconnects.
        """
        self._family.disconnect()

    async def shutdown_async(self) -> None:
        """`shutdown`, and wait until the links are closed."""
        await asyncio.wrap_future(self._family.disconnect())

    def __getattr__(self, name: str) -> DeploymentHandle[Any, Response_co]:
        # Protocols that Python looks up by name (pickling, copying) must not turn into remote methods.
        if (name.startswith("__") and name.endswith("__")) or name in ("_key", "_options", "_family"):
            raise AttributeError(name)
        return self._derived(replace(self._options, method_name=name))

    def _init(
        self,
        *,
        _prefer_local_routing: bool = False,
        _source: object = DEFAULT.VALUE,
        _run_router_in_separate_loop: bool = True,
    ) -> None:
        """Set options before the first call. Raises RuntimeError after it, or if called twice."""
        del _source
        if self._family.is_used:
            raise RuntimeError("_init() comes once, before the first .options() or .remote() of a handle.")
        if not _run_router_in_separate_loop:
            _require_loop()  # accepted for compatibility: routers always run on the I/O thread
        self._family.is_used = True
        self._options = replace(self._options, _prefer_local_routing=_prefer_local_routing)

    @property
    def _router(self) -> Router | None:
        return self._family.router

    def _derived(self, options: HandleOptions) -> DeploymentHandle[Any, Any]:
        handle: DeploymentHandle[Any, Any] = DeploymentHandle.__new__(DeploymentHandle)
        handle._key = self._key
        handle._options = options
        handle._family = self._family
        self._family.is_used = True
        return handle

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restore, (self._key.name, self._key.app, self._options, self._family.routers)

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment='{self._key.name}')"


def _require_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError("No event loop running: leave out _run_router_in_separate_loop.") from error


def _restore(
    deployment_name: str, app_name: str, options: HandleOptions, routers: Routers | None = None
) -> DeploymentHandle[Any]:
    return DeploymentHandle(deployment_name, app_name, handle_options=options, _routers=routers)


def _context(parent: Request | None, model_id: str) -> RequestContext:
    if parent is not None:
        return parent.context.for_child(model_id)
    return RequestContext(new_request_id(), multiplexed_model_id=model_id)


def _deadline_at_s(parent: Request | None, timeout_s: float | None) -> float | None:
    inherited = parent.deadline_at_s if parent is not None else None
    if timeout_s is None:
        return inherited
    own = time.monotonic() + timeout_s
    return own if inherited is None else min(own, inherited)


def _submit_when_complete(router: Router, call: OutgoingCall, pending: PendingArguments) -> None:
    if router.start_deadline(call):
        io_thread().spawn(_complete_and_submit(router, call, pending), "collect-arguments")


async def _complete_and_submit(router: Router, call: OutgoingCall, pending: PendingArguments) -> None:
    router.counts.collecting += 1
    try:
        call.request.payload = await pending.collect()
    except* UpstreamError as group:
        first = group.exceptions[0]
        outcome = first.outcome if isinstance(first, UpstreamError) else failed(MeshException(str(first)))
        router.end(call, outcome, CancelReason.CLIENT)
    except* Exception as group:  # whatever pickling and Ray can raise: the call has to end
        router.end(call, failed_in_user_code(group.exceptions[0]), CancelReason.CLIENT)
    else:
        call.started_s = time.monotonic()
        router.submit(call)
    finally:
        router.counts.collecting -= 1
