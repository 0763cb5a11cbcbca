"""A driver outside of the cluster, connected through Ray Client."""

import subprocess
import sys

from tests.nodes.conftest import Nodes

PROGRAM = """
import sys
import mesh, ray

@mesh.deployment(ray_actor_options={"num_cpus": 0.1})
class Echo:
    async def __call__(self, value):
        return value

ray.init(sys.argv[1], log_to_driver=False)
handle = mesh.run(Echo.bind(), name="client", route_prefix=None)
print(handle.remote(ray.put("by reference")).result(timeout_s=10))
print(handle.remote_with(mesh.CallOptions(timeout_s=10), "with options of its own").result())
print(ray.get(handle.remote("into the store")._to_object_ref_sync()))
try:
    handle.options(stream=True)
except RuntimeError as error:
    print(error)
mesh.delete("client")
"""


def test_a_driver_that_uses_ray_client_deploys_and_calls(nodes: Nodes) -> None:
    """It has everything but streams (item 9)."""
    program = [sys.executable, "-c", PROGRAM, nodes.ray_client_address]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "by reference",
        "with options of its own",
        "into the store",
        "Streaming DeploymentHandles are not currently supported when connected to a remote Ray cluster using Ray "
        "Client. Call the gateway instead.",
    ]
