"""What the fixture `mesh_app` of pytest gives to tests: a local application, with ports on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

from mesh.application import checked_name
from mesh.deployment import Application
from mesh.handle import DeploymentHandle
from mesh.local.local_application import LocalApplication
from mesh.options.keyword_advice import with_keyword_advice


class Ports(NamedTuple):
    """An open gateway. Addresses are "host:port"."""

    grpc_address: str
    http_address: str
    close: Callable[[], None]


OpenPorts = Callable[[LocalApplication], Ports]


class MeshApp:
    """An application that runs in the process of the test, until the test ends."""

    def __init__(self, application: LocalApplication, open_ports: OpenPorts) -> None:
        self._application = application
        self._open_ports = open_ports
        self._ports: Ports | None = None

    def __repr__(self) -> str:
        return f"<MeshApp {self._application.name}: {', '.join(self._application.deployments)}>"

    @property
    def handle(self) -> DeploymentHandle[Any]:
        """The handle of the ingress."""
        return self._application.ingress

    def deployment(self, name: str) -> DeploymentHandle[Any]:
        """The handle of any deployment. Raises KeyError if there is none of this name."""
        return self._application.handle(name)

    @property
    def grpc_address(self) -> str:
        """Where gRPC clients reach it: host:port of a gateway that opens when this is asked for."""
        return self._opened().grpc_address

    @property
    def http_url(self) -> str:
        """Where HTTP clients reach the same gateway: "http://host:port", without the route prefix."""
        return f"http://{self._opened().http_address}"

    def close(self) -> None:
        """End it before the test ends. Idempotent."""
        ports, self._ports = self._ports, None
        try:
            if ports is not None:
                ports.close()
        finally:
            self._application.close()

    def _opened(self) -> Ports:
        if self._ports is None:
            self._ports = self._open_ports(self._application)
        return self._ports


class RunMeshApp(Protocol):
    """The fixture `mesh_app`."""

    def __call__(
        self,
        target: Application,
        *,
        name: str = "default",
        route_prefix: str | None = "/",
        grpc_servicer_functions: Iterable[Callable[..., Any]] = (),
    ) -> MeshApp:
        """Run an application in this process.

        Args:
            target: The result of `Deployment.bind(...)`.
            name: Of the application.
            route_prefix: As in `mesh.run`.
            grpc_servicer_functions: As in `mesh.gRPCOptions`.

        Raises:
            TypeError, ValueError: The errors of `mesh.run`.
            RuntimeError: A deployment failed to start.
        """


@contextmanager
def mesh_apps(open_ports: OpenPorts) -> Iterator[RunMeshApp]:
    """A RunMeshApp, whose applications end with the context, the last one first."""
    with ExitStack() as apps:

        def run(
            target: Application,
            *,
            name: str = "default",
            route_prefix: str | None = "/",
            grpc_servicer_functions: Iterable[Callable[..., Any]] = (),
        ) -> MeshApp:
            if not isinstance(target, Application):
                raise TypeError(f"mesh_app takes an application, the result of Deployment.bind(...), not {target!r}.")
            application = LocalApplication(target, checked_name(name), route_prefix, tuple(grpc_servicer_functions))
            application.start()
            app = MeshApp(application, open_ports)
            apps.callback(app.close)
            return app

        run.__qualname__ = "mesh_app"
        yield with_keyword_advice(run)
