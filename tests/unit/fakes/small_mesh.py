"""Replicas in this process behind real sockets, and a router that calls them: the data plane without Ray."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

from mesh.handle import DeploymentHandle
from mesh.link.admission import Admission
from mesh.link.link_servicer import LinkServicer
from mesh.link.link_stream import LINK_LIMITS, LINK_UPKEEP
from mesh.membership.mesh_process import MeshProcess
from mesh.replica.executor import Executor
from mesh.replica.replica_metrics import ReplicaCounts
from mesh.replica.user_loop import UserLoop
from mesh.replica.user_methods import MethodTable
from mesh.routing.endpoint import Endpoint
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey, ReplicaInfo, Snapshot
from mesh.rpc.request_head import RequestHead, read_request_head
from mesh.rpc.rpc_server import RpcServer
from mesh.usercode.served_methods import typed_methods
from mesh.web.asgi_types import WebService
from mesh.wire.io_thread import io_thread
from tests.unit.fakes.waiting import until, until_async  # noqa: F401  For tests that import both from here.

T = TypeVar("T")

TOKEN = b"the token of this test"
KEY = DeploymentKey("shop", "Store")
DEADLINE_S = 30.0
SCENARIO_MAX_S = 90.0
"""Of a whole test on the I/O loop, some of which start programs."""
THREAD_END_S = 1.0
"""What code that blocks a user loop gets at the end of its test."""
_replica_numbers = itertools.count(1)
_versions = itertools.count(1)


def on_io(coroutine: Coroutine[Any, Any, T]) -> T:
    """grpc.aio wants one loop per process; it is the I/O loop in tests too."""
    return io_thread().run(coroutine, SCENARIO_MAX_S)


def do_on_io(function: Callable[..., T], *args: Any) -> T:
    async def run() -> T:
        return function(*args)

    return on_io(run())


class SmallReplica:
    """The data plane of one replica, around any object."""

    def __init__(
        self,
        target: object,
        limit: int = 100,
        *,
        is_isolated: bool = True,
        web: Callable[[UserLoop], WebService] | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`web` makes what answers its web calls."""
        self.replica_id = f"replica-{next(_replica_numbers)}"
        self.target = target
        self.admission = Admission(limit)
        self.user_loop = UserLoop(is_isolated=is_isolated, threads_max=limit)
        links: set[Any] = set()
        self.counts = ReplicaCounts(KEY.app, KEY.name, self.admission, links)
        methods = MethodTable(target, typed_methods(type(target)))
        service = web(self.user_loop) if web is not None else None
        self.executor = do_on_io(lambda: Executor(methods, self.user_loop, self.counts, service))
        self.servicer = do_on_io(lambda: LinkServicer(self.replica_id, self.admission, self.executor, links))
        self.port = 0
        self._tls = tls
        self.accept: Callable[..., Any] = self.servicer.accept
        self._server: RpcServer[RequestHead] | None = None
        on_io(self._start())

    @property
    def info(self) -> ReplicaInfo:
        return ReplicaInfo(self.replica_id, f"127.0.0.1:{self.port}")

    @property
    def ongoing(self) -> int:
        return self.admission.ongoing

    @property
    def is_idle(self) -> bool:
        """Each call holds its place until it has ended, and its user code too."""
        return not self.ongoing

    def kill(self) -> None:
        """Break all links at once, as the death of the process does."""
        if self._server is not None:
            server, self._server = self._server, None
            on_io(server.stop(0))

    def close(self) -> None:
        """Idempotent."""
        self.kill()
        if self.user_loop.loop.is_closed():
            return
        self.user_loop.stop()
        if self.user_loop.is_isolated:
            self.user_loop._thread.join(THREAD_END_S)
            if not self.user_loop._thread.is_alive():
                self.user_loop.loop.close()

    async def _start(self) -> None:
        self._server = RpcServer(read_request_head, self.accept, limits=LINK_LIMITS, policy=LINK_UPKEEP)
        self.port = await self._server.listen("127.0.0.1", self.port, tls=self._tls)


class SmallMesh:
    """Some replicas of one deployment and a router to them."""

    def __init__(self, replicas: tuple[SmallReplica, ...], queued_max: int = -1, *router_options: Any) -> None:
        self.replicas = list(replicas)
        self.queued_max = queued_max
        self.identity = CallerIdentity("test-process", "node", "", TOKEN)
        self.router = do_on_io(Router, KEY, self.identity, *router_options)
        self.publish()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The replicas as the router knows them, by id."""
        return self.router.pool.endpoints

    def publish(self, *, unavailable: str = "", lost: frozenset[str] = frozenset()) -> None:
        """Tell the router of the replicas that are here now, and of those that died."""
        limit = self.replicas[0].admission.limit if self.replicas else 1
        infos = tuple(replica.info for replica in self.replicas)
        snapshot = Snapshot(KEY, next(_versions), infos, limit, self.queued_max, unavailable, lost=lost)
        do_on_io(self.router.update, snapshot)

    def connected(self) -> SmallMesh:
        until(lambda: self.router.link_count == len(self.replicas), "links to all replicas")
        return self

    def handle(self, method: str = "__call__", **options: Any) -> DeploymentHandle[Any]:
        handle: DeploymentHandle[Any] = DeploymentHandle(KEY.name, KEY.app)
        handle._family.router = self.router
        return handle.options(method_name=method, **options)

    def assert_idle(self) -> None:
        """Nothing is left of any call, at either end."""
        until(self._is_idle, "nothing in flight, queued or held anywhere")

    def _is_idle(self) -> bool:
        router = self.router
        return not router.queued and not router.ongoing and all(replica.is_idle for replica in self.replicas)

    def close(self) -> None:
        on_io(self.router.close())
        for replica in self.replicas:
            replica.close()


def router_of(process: MeshProcess, key: DeploymentKey) -> Router:
    """The router of a deployment, without staying its user."""
    return process.use(key, _PassingUser())


class _PassingUser:
    """Is garbage immediately."""


@contextmanager
def mesh_of(
    *targets: object,
    limit: int = 100,
    queued_max: int = -1,
    is_isolated: bool = True,
    on_no_replica: Callable[[Router], None] = lambda router: None,
) -> Iterator[SmallMesh]:
    """One replica around each target, and links to all of them."""
    with patch("mesh.wire.mesh_token._token", TOKEN):
        replicas = tuple(SmallReplica(target, limit, is_isolated=is_isolated) for target in targets)
        mesh = SmallMesh(replicas, queued_max, on_no_replica)
        try:
            yield mesh.connected()
        finally:
            mesh.close()
