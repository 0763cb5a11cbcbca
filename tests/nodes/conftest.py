"""A Ray cluster of several nodes on this machine and a mesh on it, for the tests in this directory.

They need a process of their own: a process can be attached to one Ray only.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Deploy
from tests.e2e.waiting import until
from tests.free_ports import free_ports
from tests.unit.protos import shop_pb2_grpc

OBJECT_STORE_BYTES = 80 * 1024 * 1024
CPUS_PER_NODE = 2
ZONE = "ray.io/availability-zone"


@dataclass
class Nodes:
    """The cluster: a head, and workers that tests may add and take away. The head and `near` are in one zone."""

    cluster: Any
    grpc_port: int
    http_port: int
    ray_client_port: int
    head: str = ""
    near: str = ""
    far: str = ""
    added: list[Any] = field(default_factory=list)

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def ray_client_address(self) -> str:
        return f"ray://127.0.0.1:{self.ray_client_port}"

    def add(self, zone: str = "") -> str:
        """Another node; gives its id."""
        labels = {ZONE: zone} if zone else {}
        node = self.cluster.add_node(num_cpus=CPUS_PER_NODE, object_store_memory=OBJECT_STORE_BYTES, labels=labels)
        self.added.append(node)
        return str(node.node_id)

    def kill(self, node_id: str) -> None:
        """It dies without a word."""
        (node,) = (each for each in self.added if each.node_id == node_id)
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, node_id: str, deadline_unix_ms: int) -> None:
        """As `ray drain-node` and cloud providers' notices do it."""
        client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
        reason = autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION
        is_accepted, why_not = client.drain_node(node_id, reason, "a test", deadline_unix_ms)
        assert is_accepted, why_not


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    assert not ray.is_initialized(), "Run the tests in tests/nodes in a process of their own."
    root = Path(tempfile.mkdtemp(prefix="mesh-nodes-"))
    environment = {
        leftovers.MARK: str(uuid.uuid4()),
        "MESH_CONTROLLER_MIN_READY_S": "0.2",
        "MESH_CONTROLLER_GATEWAY_MIN_READY_S": "0.3",
        "MESH_GATEWAY_LAME_DUCK_S": "0.2",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(root),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    grpc_port, http_port, ray_client_port = free_ports(3)
    head = {
        "ray_client_server_port": ray_client_port,
        "num_cpus": CPUS_PER_NODE,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        "labels": {ZONE: "east"},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(address=cluster.address, namespace="mesh", log_to_driver=False, logging_level="warning")
            found = Nodes(cluster, grpc_port, http_port, ray_client_port, head=str(cluster.head_node.node_id))
            found.near, found.far = found.add("east"), found.add()
            yield found
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(root, ignore_errors=True)
        until(lambda: not leftovers.processes_of_this_run(), timeout_s=30)


@pytest.fixture(scope="session", autouse=True)
def running_mesh(nodes: Nodes) -> Iterator[None]:
    """With one gateway, on the head: the nodes share an address, so gateways would fight for its ports."""
    mesh.start(
        proxy_location="HeadOnly",
        http_options={"port": nodes.http_port},
        grpc_options={"port": nodes.grpc_port, "grpc_servicer_functions": [shop_pb2_grpc.add_StockServicer_to_server]},
    )
    yield
    mesh.shutdown()
    until(lambda: not leftovers.mesh_processes())
    assert not [each for each in ray.util.placement_group_table().values() if each["state"] != "REMOVED"]


@pytest.fixture
def deploy(running_mesh: None) -> Iterator[Deploy]:
    """`mesh.run` for applications that end with the test."""
    with ExitStack() as stack:

        def run(target: mesh.Application, name: str, *, is_awaited: bool = True) -> mesh.DeploymentHandle[Any]:
            stack.callback(mesh.delete, name)
            wanted = mesh.RunTarget(target, name=name, route_prefix=f"/{name}")
            return mesh.run_many([wanted], wait_for_applications_running=is_awaited)[0]

        yield run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))
