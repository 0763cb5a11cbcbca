"""The life of a replica: start, serve, drain, stop. Everything here runs on the I/O loop.

Order of start: user object, startup of its ASGI application, `reconfigure`, first health check, then the port opens:
what is reachable is ready.
Order of stop: callers stop sending and new calls are refused, ongoing calls end, the ASGI application shuts down, the
user object is deleted, the port closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

from mesh.cluster import ray_core, ray_placement
from mesh.context import ReplicaContext, set_replica_context
from mesh.exceptions import MeshException
from mesh.link.admission import Admission
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import LINK_LIMITS, LINK_UPKEEP
from mesh.membership.mesh_process import REPLICA, join
from mesh.membership.own_health import OwnHealth
from mesh.multiplex.multiplex_decorator import model_registry
from mesh.multiplex.preloading import copies_min_of, preload_models
from mesh.options.deployments.drain_policy import drain_policy_of
from mesh.options.deployments.health_checks import check_timeout_s_of
from mesh.options.logging_options import logging_of_replica
from mesh.replica.config_attempts import ConfigAttempts
from mesh.replica.executor import Executor
from mesh.replica.recorded_stats import (
    AUTOSCALING,
    METADATA,
    ROUTING,
    RecordedStats,
    Values,
    metadata_of,
    numbers,
    routing_stats,
)
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.traced.traced_execution import TracedExecutor
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.replica.user_object import UserObject
from mesh.routing.load_reports import Reading
from mesh.routing.snapshot import DeploymentKey
from mesh.rpc.request_head import RequestHead, read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.settings import settings
from mesh.tracing.trace_export import flush_spans, span_maker
from mesh.usercode.served_methods import typed_methods
from mesh.usercode.user_code import unpack
from mesh.v1 import control_pb2
from mesh.web.asgi_types import WebService
from mesh.wire import telemetry
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.io_thread import io_thread
from mesh.wire.link_tls import link_tls
from mesh.wire.mesh_token import local_socket, mesh_token
from mesh.wire.outcome import describe

logger = logging.getLogger("mesh")

_NOT_READY_MAX_CHARS = 500


class _Opening(NamedTuple):
    """When the port opened, and where."""

    address: str
    at_s: float


class ReplicaProcess:
    """One replica in this process."""

    def __init__(self, spec: control_pb2.ReplicaSpec) -> None:
        self.spec = spec
        options = spec.spec.options
        self._user_loop = UserLoop(is_isolated=options.isolate_user_loop, threads_max=options.max_ongoing_requests)
        self._object: UserObject | None = None
        self._admission = Admission(options.max_ongoing_requests)
        self._executor: Executor | None = None
        self._servicer: LinkServicer | None = None
        self._server: RpcServer[RequestHead] | None = None
        self._opening: _Opening | None = None
        self._began_at_s = time.monotonic()
        self._configs = ConfigAttempts()
        self._own_health: OwnHealth | None = None
        self._stats: dict[str, RecordedStats] = {}
        """By the user's hook that they are of."""

    def __repr__(self) -> str:
        phase = "DRAINING" if self.is_draining else "SERVING" if self._opening else "STARTING"
        calls = self._admission.ongoing
        return f"<ReplicaProcess {self.spec.replica_id} of {self.spec.spec.name}, {phase}, {calls} calls>"

    @property
    def is_draining(self) -> bool:
        return self._admission.is_closed

    async def start(self) -> None:
        """Build the user's object and serve. Raises what the user's code raises; MeshException if the code is gone."""
        logger.info("starting %r", self)
        options = self.spec.spec.options
        set_replica_context(self._context())
        package = await run_blocking(Work.LOOK_UP, ray_core.kv_get, self.spec.spec.code_key)
        if package is None:
            raise MeshException(f"The code of {self.spec.spec.name} is not in the cluster any more: deploy it again.")
        process = await run_blocking(Work.LOOK_UP, join, REPLICA)
        code = await self._on_user_loop(_unpacked(package))
        self._object = user_object = UserObject(code)
        await self._on_user_loop(user_object.construct())
        if self.spec.spec.serves_web:
            await self._on_user_loop(user_object.start_web(self._user_loop))
        if options.HasField("user_config_json"):
            await self._on_user_loop(user_object.reconfigure(json.loads(options.user_config_json)))
        await self._on_user_loop(preload_models(user_object.target))
        await self._on_user_loop(user_object.check_health())
        await self.check_ready()
        typed = typed_methods(code.callable, code.servicer_functions)
        metadata = await metadata_of(self._record) if user_object.has_hook(METADATA) else {}
        await self._serve(MethodTable(user_object.target, typed), user_object, metadata)
        process.own_reading = self._reading
        self._own_health = OwnHealth(self.spec.replica_id, self._check_self, self._options, process.report_health)
        self._own_health.begin()
        self._begin_stats(user_object)
        # What start-up made lives as long as the process: the collector can skip it from now on.
        gc.collect()
        gc.freeze()
        logger.info("serving: %r at %s", self, self._opening and self._opening.address)

    def ready(self) -> control_pb2.ReplicaReady:
        """The identity of this replica, and its address as "host:port"; empty before it serves."""
        return control_pb2.ReplicaReady(
            replica_id=self.spec.replica_id,
            deployment=self.spec.deployment,
            version=self.spec.spec.version,
            address=self._opening.address if self._opening else "",
            serving_s=time.monotonic() - self._opening.at_s if self._opening else 0.0,
            node_id=ray_core.node_id(),
            zone=ray_core.node_zone(),
            pid=os.getpid(),
            config_version=self.spec.config_version,
            is_draining=self.is_draining,
            spec=self.spec.spec,
            bundle_node_ids=ray_placement.own_bundle_nodes() or [ray_core.node_id()],
            age_s=time.monotonic() - self._began_at_s,
            rejected_config_version=self._configs.rejected_version,
            rejection=self._configs.rejection,
            not_ready=self._object.not_ready if self._object is not None else "",
            checks_ready=self._object is not None and self._object.checks_ready,
        )

    async def check_ready(self) -> str:
        """Why the user's `check_ready` says that the replica takes no calls now; empty: it does."""
        user_object = self._object
        if user_object is None:
            return ""
        timeout_s = check_timeout_s_of(self.spec.spec.options)
        try:
            async with asyncio.timeout(timeout_s):
                await self._on_user_loop(user_object.check_ready())
            user_object.not_ready = ""
        except TimeoutError:
            user_object.not_ready = f"check_ready() has not returned within {timeout_s:g} s"
        except (Exception, SystemExit) as error:  # the user's code may raise anything: that it raises is the answer
            user_object.not_ready = describe(error)[:_NOT_READY_MAX_CHARS]
        return user_object.not_ready

    async def check_health(self) -> None:
        """Raises what the user's `check_health` raises; MeshException while the replica drains."""
        if self.is_draining:
            # An earlier controller drained it, and the present one does not know that.
            raise MeshException("The replica is leaving: it takes no calls.")
        if self._object is not None:
            await self._on_user_loop(self._object.check_health())

    async def reconfigure(self, spec: control_pb2.ReplicaSpec) -> None:
        """Take over what can change in place: the user's configuration, the limit on calls and the access log.

        Raises what the user's `reconfigure` raises; the replica then serves on with what it had.
        """
        logger.info("reconfiguring %r", self)
        async with self._configs.attempt(spec.config_version):
            await self._reconfigure_object(spec)
            self._take_over(spec)

    async def drain(self) -> None:
        """Let ongoing calls end, at most for the drain timeout, then delete the user's object and break the links.

        Calls that still run are cancelled with their links. Returns when the process may end.
        """
        timeout_s = drain_policy_of(self.spec.spec.options).timeout_s
        logger.info("draining %r for at most %g s", self, timeout_s)
        if self._own_health is not None:
            self._own_health.end()
        if self._servicer is not None:
            self._servicer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings().replica.drain_acknowledge_timeout_s):
                    await self._servicer.wait_drain_acknowledged()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._admission.idle()
                if self._servicer is not None:
                    await self._servicer.flush()
        if self._admission.ongoing:
            logger.warning("the drain timeout of %g s has passed: the calls of %r end with its links", timeout_s, self)
        if self._object is not None:
            try:
                async with asyncio.timeout(max(timeout_s, 1.0)):
                    await self._on_user_loop(self._object.delete())
            except BaseException:  # raised by user code: the links are still to be closed
                logger.exception("__del__ of %s failed", self.spec.spec.name)
        await self._close()

    async def _check_self(self) -> str:
        """What the controller's checks would find: raises, or returns why the replica takes no calls."""
        await self.check_health()
        return await self.check_ready() if self._object is not None and self._object.checks_ready else ""

    def _options(self) -> control_pb2.DeploymentOptions:
        return self.spec.spec.options

    async def _reconfigure_object(self, spec: control_pb2.ReplicaSpec) -> None:
        before, options = self.spec.spec.options, spec.spec.options
        is_new = options.user_config_json != before.user_config_json or (
            options.HasField("user_config_json") and not before.HasField("user_config_json")
        )
        if self._object is not None and is_new and options.HasField("user_config_json"):
            await self._on_user_loop(self._object.reconfigure(json.loads(options.user_config_json)))

    def _take_over(self, spec: control_pb2.ReplicaSpec) -> None:
        self.spec, options = spec, spec.spec.options
        set_replica_context(self._context())
        if self._executor is not None:
            self._executor.log_accesses(logging_of_replica(spec).has_access_log)
        self._user_loop.set_threads_max(options.max_ongoing_requests)
        if self._object is not None:
            self._user_loop.post(self._object.set_threads_max, options.max_ongoing_requests)
        self._admission.set_limit(
            options.max_ongoing_requests, self._servicer.links if self._servicer is not None else ()
        )

    async def _serve(self, methods: MethodTable, user_object: UserObject, metadata: Values) -> None:
        links: set[Any] = set()
        deployment = self.spec.deployment
        counts = ReplicaCounts(deployment.app, deployment.name, self._admission, links, self.spec.spec.version)
        executor = self._executor = self._new_executor(methods, counts, user_object.web)
        executor.log_accesses(logging_of_replica(self.spec).has_access_log)
        servicer = self._servicer = LinkServicer(self.spec.replica_id, self._admission, executor, links)
        model_registry.on_change(lambda ids: io_thread().call(servicer.announce_models, ids))
        servicer.announce_models(model_registry.model_ids())
        servicer.facts = replace(servicer.facts, copies_min=copies_min_of(user_object.target), metadata=metadata)
        telemetry.register(counts.samples)
        self._server = RpcServer(read_request_head, servicer.accept, limits=LINK_LIMITS, policy=LINK_UPKEEP)
        tls, node_ip = link_tls(), ray_core.node_ip()
        port = await self._server.listen(
            settings().process.server_host or node_ip, 0, tls=tls.listening if tls is not None else None
        )
        address = f"{node_ip}:{port}"
        await self._server.listen_unix(local_socket(address, mesh_token()))
        self._opening = _Opening(address, time.monotonic())

    def _new_executor(self, methods: MethodTable, counts: ReplicaCounts, web: WebService | None) -> Executor:
        spans = span_maker()
        if spans is None:
            return Executor(methods, self._user_loop, counts, web)
        name = self.spec.deployment
        return TracedExecutor(spans, DeploymentKey(name.app, name.name), methods, self._user_loop, counts, web)

    def _begin_stats(self, user_object: UserObject) -> None:
        if user_object.has_hook(AUTOSCALING):
            self._stats[AUTOSCALING] = RecordedStats(
                AUTOSCALING,
                self._record,
                interval_s=lambda: self._load_interval_s,
                timeout_s=lambda: settings().replica.autoscaling_stats_timeout_s,
                read=numbers,
            )
        if user_object.has_hook(ROUTING) and self._servicer is not None:
            announce = self._servicer.announce_stats
            self._stats[ROUTING] = routing_stats(self._record, self._options, announce)
        for stats in self._stats.values():
            stats.begin()

    def _reading(self) -> Reading:
        """The load of this replica, for the controller."""
        name = self.spec.deployment
        return Reading(
            deployment=DeploymentKey(name.app, name.name),
            interval_s=self._load_interval_s,
            executing=self._admission.ongoing,
            stats=self._stats[AUTOSCALING].values if AUTOSCALING in self._stats else {},
        )

    @property
    def _load_interval_s(self) -> float:
        return self.spec.spec.options.autoscaling.metrics_interval_s

    async def _record(self, hook: str) -> object:
        return await self._on_user_loop(self._object.record(hook)) if self._object is not None else {}

    async def _close(self) -> None:
        for stats in self._stats.values():
            stats.end()
        if self._servicer is not None:
            self._servicer.stop()
        if self._server is not None:
            await self._server.stop(settings().replica.close_grace_s)
        self._user_loop.stop()
        await flush_spans()

    async def _on_user_loop(self, coroutine: Any) -> Any:
        if not self._user_loop.is_isolated:
            return await coroutine
        return await asyncio.wrap_future(self._user_loop.submit(coroutine))

    def _context(self) -> ReplicaContext:
        spec = self.spec
        return ReplicaContext(
            app_name=spec.deployment.app,
            deployment=spec.deployment.name,
            replica_tag=spec.replica_id,
            max_ongoing_requests=spec.spec.options.max_ongoing_requests,
            code_version=spec.spec.version,
            get_servable_object=lambda: self._object.target if self._object is not None else None,
        )


async def _unpacked(package: bytes) -> Any:
    return unpack(package)
