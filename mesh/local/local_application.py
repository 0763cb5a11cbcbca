"""`LocalApplication`: one application whose deployments all run in this process."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, ContextVar
from typing import Any

from mesh.application import BuildRules, build
from mesh.deployment import Application
from mesh.exceptions import MeshException
from mesh.handle import DeploymentHandle
from mesh.local.local_replica import LocalReplica, PackedCode
from mesh.options import option_checks
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.usercode.user_code import Replace, UserCode, pack_arguments
from mesh.usercode.user_failure import UserCodeError
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import describe

_DESCRIPTORS = "local"


class LocalApplication:
    """The replicas of an application, the routers to them, and what a gateway needs to serve it. From any thread.

    Its handles travel within this process only: pickled, they name this object.
    """

    peers: Sequence[control_pb2.Peer] = ()
    """For its gateway: there is no other process."""
    has_controller = True

    def __init__(
        self,
        target: Application,
        name: str,
        route_prefix: str | None,
        servicer_functions: tuple[Callable[..., Any], ...] = (),
    ) -> None:
        """Raises TypeError for bound arguments that cannot be pickled, ValueError for a wrong route prefix."""
        self.name = name
        self._id = uuid.uuid4().hex
        self._packed: list[PackedCode] = []
        self._handles: dict[str, DeploymentHandle[Any]] = {}
        self._routers: dict[DeploymentKey, Router] = {}
        self._lock = threading.Lock()
        rules = BuildRules(
            make_handle=lambda deployment, app: DeploymentHandle(deployment, app, _routers=self),
            version_of=lambda code, packed: "local",
            pack=self._pack,
            servicer_functions=servicer_functions,
        )
        self.spec = build(target, name=name, route_prefix=route_prefix, rules=rules)
        self._replicas: dict[str, LocalReplica] = {}
        self.deployed_at_s = time.time()

    def __repr__(self) -> str:
        return f"<LocalApplication {self.name}, {len(self._replicas)} replicas>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _living_application, (self._id, self.name)

    @property
    def deployments(self) -> list[str]:
        """Names, callees before callers."""
        return [each.name for each in self.spec.deployments]

    def handle(self, deployment_name: str, *, check_exists: bool = True) -> DeploymentHandle[Any]:
        """The handle of a deployment. Raises KeyError if there is none of this name, unless its calls are to say so."""
        if deployment_name not in self.deployments:
            if check_exists:
                raise KeyError(self._no_deployment(deployment_name))
            return DeploymentHandle(deployment_name, self.name, _routers=self)
        handle = self._handles.get(deployment_name)
        if handle is None:
            handle = self._handles[deployment_name] = DeploymentHandle(deployment_name, self.name, _routers=self)
        return handle

    def replica(self, deployment_name: str) -> LocalReplica | None:
        """The one replica of a deployment; None before it begins to start, and after the end."""
        return self._replicas.get(deployment_name)

    @property
    def ingress(self) -> DeploymentHandle[Any]:
        return self.handle(self.spec.ingress)

    # ---- Life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start one replica of each deployment, callees first.

        Raises RuntimeError, from what the user's code raised; nothing is left then.
        """
        _living[self._id] = self
        for spec in self.spec.deployments:
            context = Context()
            context.run(OWN_APPLICATION.set, self)
            replica = LocalReplica(self.name, spec, self._packed[int(spec.code)], context)
            self._replicas[spec.name] = replica
            try:
                io_thread().run(replica.start())
            except BaseException as error:
                self.close()
                if not isinstance(error, Exception):
                    raise
                reason = str(error) if isinstance(error, UserCodeError) else describe(error)
                start = f"Deployment '{spec.name}' of application '{self.name}' failed to start"
                raise RuntimeError(f"{start}: {reason}") from error

    def close(self) -> None:
        """Cancel all calls, delete the users' objects, callers first, and end all threads. Idempotent."""
        _living.pop(self._id, None)
        with self._lock:
            routers, self._routers = list(self._routers.values()), {}
            replicas, self._replicas = list(self._replicas.values()), {}
        io_thread().run(_stop(routers, replicas[::-1]))
        for replica in replicas:
            replica.close()

    # ---- Callers (Routers), and its gateway (GatewayProcess) ---------------------------------------------------------

    def use(self, key: DeploymentKey, user: object) -> Router:
        """The router of a deployment. Raises MeshException if it has no replica."""
        with self._lock:
            replica = self._replicas.get(key.name)
            if replica is None:
                raise self._no_replica(key.name)
            router = self._routers.get(key)
            if router is None:
                router = self._routers[key] = Router(key, replica.identity)
                io_thread().post(router.update, replica.snapshot)
            router.users.add(user)
        return router

    def leave(self, router: Router, user: object) -> Future[None]:
        """`user` no longer needs the router. The last user closes it; the future is done when it is closed."""
        with self._lock:
            router.users.discard(user)
            if router.users or self._routers.get(router.key) is not router:
                done: Future[None] = Future()
                done.set_result(None)
                return done
            del self._routers[router.key]
        return io_thread().submit(router.close())

    def on_routes(self, callback: Callable[[control_pb2.RouteTable], None]) -> None:
        """Call `callback` with the route table, which never changes."""
        spec = self.spec
        ingress = next(each for each in spec.deployments if each.name == spec.ingress)
        table = control_pb2.RouteTable(version=1)
        table.routes.add(
            app=spec.name,
            route_prefix=spec.route_prefix,
            ingress=spec.ingress,
            grpc_methods=ingress.grpc_methods,
            serves_web=ingress.serves_web,
            docs_path=ingress.docs_path,
            model_id_paths=ingress.model_id_paths,
            descriptors_digest=_DESCRIPTORS if spec.descriptors else "",
        )
        table.descriptor_sets.add(digest=_DESCRIPTORS, serialised=spec.descriptors)
        callback(table)

    def on_replicas(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the routers that are in use know their replicas, which never change."""
        io_thread().post(callback)

    def _no_replica(self, name: str) -> MeshException:
        if name not in self.deployments:
            return MeshException(self._no_deployment(name))
        if not self._replicas:
            return _ended(self.name)
        return MeshException(f"Deployment '{name}' has not started: a constructor may call what is bound to it only.")

    def _no_deployment(self, name: str) -> str:
        advice = option_checks.did_you_mean(name, self.deployments)
        return f"Deployment '{name}' of application '{self.name}' does not exist.{advice}"

    def _pack(self, code: UserCode, replace: Replace) -> bytes:
        """The index of the code in `_packed`: classes stay as they are, so tests can patch what they use."""
        self._packed.append(PackedCode(code, pack_arguments(code, replace)))
        return str(len(self._packed) - 1).encode()


async def _stop(routers: list[Router], replicas: list[LocalReplica]) -> None:
    await asyncio.gather(*(router.close() for router in routers))
    for replica in replicas:
        await replica.stop()


OWN_APPLICATION: ContextVar[LocalApplication | None] = ContextVar("mesh_own_application", default=None)
"""The one whose code runs here."""
_living: dict[str, LocalApplication] = {}
"""By id."""


def living_applications() -> list[LocalApplication]:
    """All of this process, in the order of their start."""
    return list(_living.values())


def _living_application(application_id: str, name: str) -> LocalApplication:
    found = _living.get(application_id)
    if found is None:
        raise _ended(name)
    return found


def _ended(name: str) -> MeshException:
    return MeshException(
        f"The local application '{name}' has ended, or runs in another process. Its handles work in its process, until "
        "mesh.delete() or mesh.shutdown()."
    )
