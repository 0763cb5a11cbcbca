"""The handle of a deployment: what users call it with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Unpack, overload

from typing_extensions import TypeVar

from mesh.caller.broadcast import BroadcastResponse
from mesh.caller.call_options import CallOptions
from mesh.caller.call_start import begin_broadcast, begin_call, begin_reservation
from mesh.caller.handle_family import HandleFamily, Routers
from mesh.caller.handle_options import HandleOptions, IgnoredOptions, OptionKeywords, check_ignored
from mesh.caller.init_options import InitOptions, handle_source
from mesh.caller.replica_choice import ReplicaChoice, ReplicaSelection
from mesh.caller.request_counter import RequestCounter
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.cluster import ray_core
from mesh.options import option_checks
from mesh.options.default import DEFAULT
from mesh.options.keyword_advice import with_keyword_advice
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey

T = TypeVar("T", default=Any)
Response_co = TypeVar(
    "Response_co",
    bound=DeploymentResponse[Any] | DeploymentResponseGenerator[Any],
    covariant=True,
    default=DeploymentResponse[Any],
)

DeploymentBroadcastResponse = BroadcastResponse
"""Its name in Ray Serve."""


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
        """The deployment that it calls."""
        return self._key.name

    @property
    def app_name(self) -> str:
        """The application of that deployment."""
        return self._key.app

    @property
    def deployment_id(self) -> DeploymentKey:
        """Both names, as `name` and `app_name`."""
        return self._key

    @property
    def request_counter(self) -> RequestCounter:
        """Counts the calls of this handle and of all that were derived from it."""
        return self._family.request_counter

    @property
    def init_options(self) -> InitOptions:
        """As in Ray Serve: what was fixed when the handle was made."""
        return InitOptions(_prefer_local_routing=self._options._prefer_local_routing, _source=handle_source())

    @property
    def handle_options(self) -> HandleOptions:
        """What each of its calls asks for."""
        return self._options

    @property
    def handle_id(self) -> str:
        """Names this handle and all that were derived from it; another one in each process."""
        return self._family.handle_id

    @property
    def is_initialized(self) -> bool:
        """Whether `_init()` comes too late: there was one, an `.options()` or a call."""
        return self._family.is_used

    @overload
    def options(
        self, *, stream: Literal[True], **others: Unpack[OptionKeywords]
    ) -> DeploymentHandle[T, DeploymentResponseGenerator[Any]]: ...
    @overload
    def options(
        self, *, stream: Literal[False], **others: Unpack[OptionKeywords]
    ) -> DeploymentHandle[T, DeploymentResponse[Any]]: ...
    @overload
    def options(
        self, *, stream: Literal[DEFAULT.VALUE] = ..., **others: Unpack[OptionKeywords]
    ) -> DeploymentHandle[T, Response_co]: ...
    @overload
    def options(self, *, stream: bool | DEFAULT, **others: Unpack[OptionKeywords]) -> DeploymentHandle[T, Any]: ...
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
        tenant: str | DEFAULT = DEFAULT.VALUE,
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | DEFAULT = DEFAULT.VALUE,
        _prefer_local_routing: bool | DEFAULT = DEFAULT.VALUE,
        **ignored: Unpack[IgnoredOptions],
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
            tenant: For whom each call is; what it calls inherits that. Without `session_id` it counts like one.
            metadata: gRPC metadata, which the method reads from its `grpc_context`; values of keys that end in "-bin"
                are bytes.
            **ignored: Options of Ray Serve that have no effect.

        Returns: The new handle. This one is unchanged; both share their router.
        Raises: TypeError or ValueError for a wrong value, RuntimeError for `stream=True` in Ray Client.
        """
        check_ignored(ignored)
        if stream is True:
            _refuse_in_ray_client()
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
            "tenant": tenant,
            "metadata": metadata,
            "_prefer_local_routing": _prefer_local_routing,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not DEFAULT.VALUE}
        return self._derived(replace(self._options, **changes))

    def remote(self, *args: Any, **kwargs: Any) -> Response_co:
        """Call the method. Never waits for a replica.

        Responses of other calls, and object references, may be top-level arguments without being awaited. One argument
        may be a stream: an async iterable (in an event loop) or a generator. Its items are sent as the method reads
        them; the method gets an async iterator, in a `def` method an iterator.

        Returns: A DeploymentResponse, or with `stream=True` a DeploymentResponseGenerator. Errors of the call itself
            are raised by them, not here.
        Raises: UnserializableError for arguments that cannot be pickled, PayloadTooLargeError for too large ones,
            RuntimeError for a streaming response as an argument, MeshException if no mesh is running.
        """
        response: Response_co = begin_call(self._key, self._family.router_for_call(), self._options, args, kwargs)
        return response

    def remote_with(self, options: CallOptions, /, *args: Any, **kwargs: Any) -> Response_co:
        """Call the method as `remote` does, with options for this call in the place of the handle's own.

        It makes no handle, and costs a microsecond more than `remote`.

        Raises: What `remote` raises; TypeError for options that are not a `mesh.CallOptions`, ValueError if they and
            the handle's together ask for a second copy of calls that are not idempotent.
        """
        if not isinstance(options, CallOptions):
            raise _no_call_options(options, self._options.method_name)
        changed = options.over(self._options)
        response: Response_co = begin_call(self._key, self._family.router_for_call(), changed, args, kwargs)
        return response

    def broadcast(self, method_name: str, /, *args: Any, **kwargs: Any) -> BroadcastResponse:
        """Call a method of every running replica, also of those that have no free place.

        Of the options, `timeout_s`, `metadata` and `multiplexed_model_id` apply.

        Returns: All responses in one, with `results()` and `results_async()`.
        Raises: UnserializableError, PayloadTooLargeError, and TypeError for responses or streams as arguments.
        """
        options = replace(self._options, method_name=method_name, stream=False)
        return begin_broadcast(self._key, self._family.connected(), options, args, kwargs)

    def choose_replica(self, *args: Any, **kwargs: Any) -> ReplicaChoice:
        """Choose a replica as for a call with these arguments and options, and reserve a place there:

            async with handle.generate.choose_replica() as chosen:
                response = handle.generate.dispatch(chosen, prompt, peer=chosen.replica_id)

        The place is given back at the end of the block, if no call was dispatched.
        """
        del args, kwargs
        options = self._options
        return ReplicaChoice(self._key, lambda: begin_reservation(self._family.connected(), options))

    def dispatch(self, selection: ReplicaSelection, /, *args: Any, **kwargs: Any) -> Response_co:
        """Call the method on the chosen replica, with the place that is reserved there.

        Raises: What `remote` raises; ValueError for a replica of another deployment, RuntimeError for a selection that
            was dispatched already, TypeError for responses and object references as arguments: await them before.
        """
        router = self._family.connected()
        replica_id = selection.use(self._key)
        next(self._family.request_counter.numbers)
        response: Response_co = begin_call(self._key, router, self._options, args, kwargs, replica_id)
        selection.release()  # behind the call on the same link, so nothing takes the place in between
        return response

    if not TYPE_CHECKING:  # for them a call is an error, as it is at run time

        def __call__(self, *args: object, **kwargs: object) -> NoReturn:
            raise TypeError(
                f"A handle is not called like a function: write {_in_code(self._options.method_name)}.remote(...), "
                "which returns a response to await or to ask for its result()."
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
        return self._derived(self._options.with_checked({"method_name": option_checks.name_text("method_name", name)}))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restore, (self._key.name, self._key.app, self._options, self._family.routers)

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment='{self._key.name}')"

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


def _no_call_options(given: object, method_name: str) -> TypeError:
    handle = _in_code(method_name)
    return TypeError(
        f"remote_with() takes a mesh.CallOptions before the arguments of the method, not {type(given).__name__}: write "
        f"{handle}.remote_with(mesh.CallOptions(timeout_s=1.5), ...), or {handle}.remote(...) for the handle's options."
    )


def _in_code(method_name: str) -> str:
    """A handle for this method, as users write it."""
    return "handle" if method_name == "__call__" else f"handle.{method_name}"


def _refuse_in_ray_client() -> None:
    if ray_core.is_ray_client():
        raise RuntimeError(
            "Streaming DeploymentHandles are not currently supported when connected to a remote Ray cluster using "
            "Ray Client. Call the gateway instead."
        )


def _require_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError("No event loop running: leave out _run_router_in_separate_loop.") from error


def _restore(
    deployment_name: str, app_name: str, options: HandleOptions, routers: Routers | None = None
) -> DeploymentHandle[Any]:
    return DeploymentHandle(deployment_name, app_name, handle_options=options, _routers=routers)
