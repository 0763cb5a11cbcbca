"""What `mesh.shutdown` leaves: nothing. The end of the whole run is looked at in conftest."""

from typing import Any

import pytest
import ray

import mesh
from mesh.exceptions import MeshException
from tests.e2e import leftovers
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until


@small(num_replicas=2)
def answer() -> int:
    return 42


def test_shutdown_ends_everything_and_a_new_mesh_can_start(gateway: Gateway) -> None:
    """Items 60, 126 and 127."""
    handle: Any = mesh.run(answer.bind(), name="last", route_prefix="/last")
    assert handle.remote().result(timeout_s=10) == 42
    mesh.shutdown()
    until(lambda: not leftovers.mesh_processes())
    assert not [port for port in (gateway.grpc_port, gateway.http_port) if leftovers.is_listening(port)]
    assert not [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == "mesh"]
    mesh.shutdown()
    assert mesh.status() == type(mesh.status())()
    with pytest.raises(MeshException, match="no mesh instance running"):
        mesh.get_app_handle("last")

    gateway.start_mesh()
    assert mesh.status().applications == {}
    again: Any = mesh.run(answer.bind(), name="again", route_prefix="/again")
    assert again.remote().result(timeout_s=10) == 42
    mesh.delete("again")
