"""`LocalReplica`: a replica in threads of this process, whose callers reach it on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import pickle
import secrets
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from mesh.context import ReplicaContext, put_replica_into
from mesh.link.admission import Admission
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import LINK_LIMITS, LINK_UPKEEP
from mesh.multiplex.multiplex_decorator import registry_in
from mesh.multiplex.preloading import copies_min_of, preload_models
from mesh.replica.executor import Executor
from mesh.replica.recorded_stats import METADATA, ROUTING, RecordedStats, metadata_of, routing_stats
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.replica.user_object import UserObject
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.snapshot import DeploymentKey, ReplicaInfo, Snapshot, read_router
from mesh.rpc.request_head import RequestHead, read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.usercode.served_methods import typed_methods
from mesh.usercode.user_code import UserCode
from mesh.usercode.user_failure import UserCodeError
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.mesh_token import local_socket
from mesh.wire.outcome import describe, read_answer

logger = logging.getLogger("mesh")
T = TypeVar("T")

_NODE_ID = "local"
_NO_ADDRESS = "127.0.0.1:0"
"""It has no TCP port: its callers, as on one node, use the Unix socket that this and the token name."""
_TOKEN_BYTES = 32
STOP_TIMEOUT_S = 2.0
"""Time for each step of a stop: the end of calls, `__del__`, the end of threads."""


class PackedCode(NamedTuple):
    """The code of one deployment: the class or function itself, its arguments pickled."""

    code: UserCode
    arguments: bytes


class LocalReplica:
    """On the I/O loop, except for `close`."""

    def __init__(self, app_name: str, spec: control_pb2.DeploymentSpec, packed: PackedCode, context: Context) -> None:
        """Its code runs in copies of `context`."""
        self.spec = spec
        self.key = DeploymentKey(app_name, spec.name)
        self._packed = packed
        replica = ReplicaContext(
            app_name=app_name,
            deployment=spec.name,
            replica_tag=self.replica_id,
            max_ongoing_requests=spec.options.max_ongoing_requests,
            code_version=spec.version,
            get_servable_object=lambda: self._object.target if self._object is not None else None,
        )
        self._context = context
        put_replica_into(context, replica)
        self._models = registry_in(self._context)
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        limit = spec.options.max_ongoing_requests
        self._user_loop = UserLoop(is_isolated=True, threads_max=limit, context=self._context)
        self._admission = Admission(limit)
        self._object: UserObject | None = None
        self._servicer: LinkServicer | None = None
        self._server: RpcServer[RequestHead] | None = None
        self._stats: RecordedStats | None = None

    @property
    def replica_id(self) -> str:
        return f"{self.spec.name}-local"

    @property
    def is_serving(self) -> bool:
        return self._server is not None

    @property
    def ongoing(self) -> int:
        """Calls that are executed now."""
        return self._admission.ongoing

    def __repr__(self) -> str:
        phase = "serving" if self.is_serving else "not serving"
        return f"<LocalReplica of {self.key}, {phase}, {self.ongoing} calls>"

    @property
    def identity(self) -> CallerIdentity:
        """What the replica's callers say of themselves: they are all in this process."""
        return CallerIdentity("local", _NODE_ID, "", self._token)

    @property
    def snapshot(self) -> Snapshot:
        """What the routers of its callers get."""
        options = self.spec.options
        return Snapshot(
            deployment=self.key,
            version=1,
            replicas=(ReplicaInfo(self.replica_id, _NO_ADDRESS, _NODE_ID),),
            max_ongoing_requests=options.max_ongoing_requests,
            max_queued_requests=options.max_queued_requests,
            queue_timeout_s=options.queue_timeout_s,
            backpressure=read_answer(options.backpressure) if options.HasField("backpressure") else None,
            request_router=read_router(options.request_router),
        )

    async def start(self) -> None:
        """As on a mesh: constructor, startup of the ASGI application, `reconfigure`, health check; then it serves.

        Raises what the user's code raises, UserCodeError where it tries to end the process.
        """
        options = self.spec.options
        user_object = self._object = await self._on_user_loop(self._unpacked())
        await self._on_user_loop(user_object.construct())
        if self.spec.serves_web:
            await self._on_user_loop(user_object.start_web(self._user_loop))
        if options.HasField("user_config_json"):
            await self._on_user_loop(user_object.reconfigure(json.loads(options.user_config_json)))
        await self._on_user_loop(preload_models(user_object.target))
        await self._on_user_loop(user_object.check_health())
        await self._serve(user_object)

    async def stop(self) -> None:
        """End the links with their calls, then delete the user's object. What it raises is logged."""
        if self._stats is not None:
            self._stats.end()
        if self._servicer is not None:
            self._servicer.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._admission.idle()
        if self._object is not None:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._on_user_loop(self._object.delete())
            except BaseException:  # whatever user code raises, the rest of the application ends too
                logger.exception("__del__ of %s failed", self.key)
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)

    def close(self) -> None:
        """End the threads, after `stop`. From any other thread."""
        self._user_loop.close(STOP_TIMEOUT_S)

    async def _unpacked(self) -> UserObject:
        """On the user loop: unpickling runs code of the user."""
        code, arguments = self._packed
        init_args, init_kwargs = pickle.loads(arguments)
        return UserObject(UserCode(code.callable, init_args, init_kwargs, code.servicer_functions))

    async def _serve(self, user_object: UserObject) -> None:
        code = self._packed.code
        metadata = await metadata_of(self._record) if user_object.has_hook(METADATA) else {}
        links: set[Any] = set()
        counts = ReplicaCounts(self.key.app, self.key.name, self._admission, links)
        typed = typed_methods(code.callable, code.servicer_functions)
        methods = self._context.run(MethodTable, user_object.target, typed)
        executor = Executor(methods, self._user_loop, counts, user_object.web)
        token_matches = partial(hmac.compare_digest, self._token)
        servicer = LinkServicer(self.replica_id, self._admission, executor, links, token_matches)
        self._servicer = servicer
        self._models.on_change(lambda ids: io_thread().call(servicer.announce_models, ids))
        servicer.announce_models(self._models.model_ids())
        servicer.facts = replace(servicer.facts, copies_min=copies_min_of(user_object.target), metadata=metadata)
        server = RpcServer(read_request_head, servicer.accept, limits=LINK_LIMITS, policy=LINK_UPKEEP)
        await server.listen_unix(local_socket(_NO_ADDRESS, self._token))
        self._server = server
        if user_object.has_hook(ROUTING):
            self._stats = routing_stats(self._record, lambda: self.spec.options, servicer.announce_stats)
            self._stats.begin()

    async def _record(self, hook: str) -> object:
        return await self._on_user_loop(self._object.record(hook)) if self._object is not None else {}

    async def _on_user_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wrap_future(self._context.copy().run(self._user_loop.submit, coroutine))
        except (SystemExit, KeyboardInterrupt) as error:  # raised by user code: it must not end the test
            raise UserCodeError(describe(error)) from error
