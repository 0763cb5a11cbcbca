"""The end-to-end environment: one Ray and one mesh for the whole run, and the proof that nothing of them is left."""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

import mesh
from tests.e2e import leftovers
from tests.e2e.ray_docs import URL, Run
from tests.e2e.waiting import until
from tests.free_ports import free_ports
from tests.unit.protos import shop_pb2_grpc

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
OBJECT_STORE_BYTES = 300_000_000
CPUS = 16

Deploy = Callable[..., mesh.DeploymentHandle[Any]]


@dataclass(frozen=True)
class Gateway:
    """Where the run's only gateway listens."""

    grpc_port: int
    http_port: int

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start_mesh(self) -> None:
        """The Stock service is named here; Shop services are inherited by their deployments."""
        mesh.start(
            http_options={"port": self.http_port},
            grpc_options={
                "port": self.grpc_port,
                "grpc_servicer_functions": [shop_pb2_grpc.add_StockServicer_to_server],
            },
        )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A local Ray whose processes carry the run's mark; gives the directory for their temporary files."""
    # Short: Ray puts Unix sockets into it.
    root = Path(tempfile.mkdtemp(prefix="mesh-e2e-"))
    temporary = root / "tmp"
    temporary.mkdir()
    environment = {
        leftovers.MARK: str(uuid.uuid4()),
        "MESH_CLIENT_GATEWAYS_FAILING_TIMEOUT_S": "3",
        "MESH_CONTROLLER_LOAD_INTERVAL_S": "1",
        "MESH_CONTROLLER_MIN_READY_S": "0.2",
        "MESH_CONTROLLER_RETIRE_DELAY_S": "1",
        "MESH_GATEWAY_LAME_DUCK_S": "0.2",
        "MESH_CONTROLLER_GATEWAY_MIN_READY_S": "0.2",
        "MESH_MESSAGE_MAX_BYTES": str(MESSAGE_MAX_BYTES),
        # Tests add up what all processes say, on a busy machine too.
        "MESH_SCRAPE_TIMEOUT_S": "5",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "TMPDIR": str(temporary),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            ray.init(
                address="local",
                namespace="mesh",
                num_cpus=CPUS,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
                _temp_dir=str(root / "ray"),
            )
            yield temporary
            ray.shutdown()
            until(lambda: not leftovers.processes_of_this_run())
            assert leftovers.files_below(temporary) == []
        finally:
            ray.shutdown()
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def gateway(cluster: Path) -> Iterator[Gateway]:
    """The mesh, with its gateway on ports of this run."""
    gateway = Gateway(*free_ports(2))
    gateway.start_mesh()
    try:
        yield gateway
    finally:
        mesh.shutdown()
    until(lambda: not leftovers.mesh_processes())
    # A process that ends has no environment any more by which it would be found, and its ports for a moment still.
    until(lambda: not [port for port in (gateway.grpc_port, gateway.http_port) if leftovers.is_listening(port)])


@pytest.fixture(scope="module")
def deploy(gateway: Gateway) -> Iterator[Deploy]:
    """`mesh.run` for applications that end with the test module."""
    with ExitStack() as stack:

        def run(target: mesh.Application, name: str) -> mesh.DeploymentHandle[Any]:
            stack.callback(mesh.delete, name)
            return mesh.run(target, name=name, route_prefix=f"/{name}")

        yield run


@pytest.fixture
def run(gateway: Gateway) -> Iterator[Run]:
    """`mesh.run` for one test; gives the handle, and the URL of the route prefix."""
    with ExitStack() as stack:

        def run(
            target: mesh.Application, name: str = "documented", **options: Any
        ) -> tuple[mesh.DeploymentHandle, URL]:
            stack.callback(mesh.delete, name)
            handle = mesh.run(target, name=name, route_prefix=f"/{name}", **options)
            return handle, f"{gateway.http_url}/{name}"

        yield run


@pytest.fixture(scope="module")
def channel(gateway: Gateway) -> Iterator[grpc.Channel]:
    """A stock gRPC client's connection to the gateway."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc_address, options=options) as channel:
        yield channel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))
