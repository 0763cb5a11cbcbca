"""What `mesh.shutdown` leaves: nothing. The end of the whole run is looked at in conftest."""

from typing import Any

import pytest
import ray
from ray.util import placement_group_table

import mesh
from mesh.client import mesh_lifecycle
from mesh.cluster import ray_core
from mesh.exceptions import MeshException
from tests.e2e import leftovers
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until


@small(num_replicas=2)
def answer() -> int:
    return 42


@small()
class Asking:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __call__(self) -> int:
        return await self._answer.remote()


def test_shutdown_ends_everything_and_a_new_mesh_can_start(gateway: Gateway) -> None:
    """No actor, process, port, KV key or placement group is left (items 60, 126, 127)."""
    handle: Any = mesh.run(Asking.bind(answer.bind()), name="last", route_prefix="/last")
    assert handle.remote().result(timeout_s=10) == 42
    ports = {gateway.grpc_port, gateway.http_port, *ports_of_replicas()}
    assert len(ports) >= 5
    mesh.shutdown()
    assert ray_core.kv_keys("") == []
    assert not [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == "mesh"]
    assert not [each for each in placement_group_table().values() if each["state"] != "REMOVED"]
    until(lambda: not leftovers.mesh_processes())
    until(lambda: not [port for port in ports if leftovers.is_listening(port)])
    mesh.shutdown()
    assert mesh.status() == type(mesh.status())()
    with pytest.raises(MeshException, match="no mesh instance running"):
        mesh.get_app_handle("last")

    gateway.start_mesh()
    assert mesh.status().applications == {}
    again: Any = mesh.run(answer.bind(), name="again", route_prefix="/again")
    assert again.remote().result(timeout_s=10) == 42
    mesh.delete("again")


def ports_of_replicas() -> set[int]:
    return {
        int(replica.address.rpartition(":")[2])
        for application in mesh_lifecycle.require().status().applications
        for deployment in application.deployments
        for replica in deployment.replicas
    }
