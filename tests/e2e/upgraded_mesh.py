"""The programs of `test_upgrade.py`, which run with the code of one version or the other.

`serve` starts Ray and a mesh, says where on its output, and serves until its input ends. `update` finds that mesh,
deploys one of its applications again, with the code that is installed then, and asks for other gateways.
"""

import json
import sys
import time
from typing import Any

import ray

import mesh
import mesh.exceptions
from mesh.client import mesh_lifecycle
from tests.unit.protos import shop_pb2, shop_pb2_grpc

OBJECT_STORE_BYTES = 80 * 1024 * 1024


def is_new() -> bool:
    """Whether this process has loaded a version later than the recorded one."""
    return hasattr(mesh.exceptions, "ChangeConflictError")


@mesh.deployment(ray_actor_options={"num_cpus": 0}, num_replicas=2, min_ready_s=0.2)
class Front(shop_pb2_grpc.ShopServicer):
    """Says who it is, and whether it and its callee are new."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._stock: Any = mesh.get_app_handle("stock")

    async def Price(self, request: shop_pb2.Item, context: Any) -> shop_pb2.Item:
        return shop_pb2.Item(name=f"{self._label} {is_new()} {await self._stock.remote()}")


@mesh.deployment(ray_actor_options={"num_cpus": 0})
class Stock:
    def __call__(self) -> bool:
        return is_new()


def serve(port: int, directory: str) -> None:
    ray.init(
        address="local",
        namespace="mesh",
        num_cpus=4,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
        _temp_dir=directory,
    )
    mesh.start(http_options={"port": None}, grpc_options={"port": port})
    mesh.run(Stock.bind(), name="stock", route_prefix=None)
    mesh.run(Front.bind("one"), name="shop", route_prefix=None)
    controller = mesh_lifecycle.require().status().controller
    print(json.dumps({"address": ray.get_runtime_context().gcs_address, "controller": controller.pid}), flush=True)
    sys.stdin.read()
    ray.shutdown()


def update(address: str) -> None:
    ray.init(address=address, namespace="mesh", log_to_driver=False, logging_level="warning")
    # No earlier version knows this call: the client repeats it until the new controller answers.
    saved = mesh_lifecycle.require().backup()
    mesh.run(Front.bind("two"), name="shop", route_prefix=None)
    print(json.dumps(sorted(app.name for app in saved.state.applications)), flush=True)
    client = mesh_lifecycle.require()
    wanted = client.status().gateway_options
    wanted.max_message_bytes += 1
    client.configure_gateways(wanted, client.status().gateway_options)
    while not (messages := [each.message for each in client.status().gateways if each.message]):
        time.sleep(0.05)
    print(json.dumps(messages), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        update(sys.argv[2])
