"""An application of several deployments, and a canary beside it."""

import asyncio
import functools

from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import counts

TEN_PERCENT = control_pb2.TrafficRule(percent=10.0)


async def with_canary(versions: dict[str, str], num_replicas: int) -> Mesh:
    """The application has run a1 and b1 for a while; the canary has these versions."""
    mesh = Mesh(seed=1)
    await mesh.boot()
    await run_shop(mesh, {"A": "a1", "B": "b1"}, num_replicas)
    await mesh.until(lambda: counts(mesh) == {"a1": num_replicas, "b1": num_replicas})
    await asyncio.sleep(30.0)
    await run_shop(mesh, versions, num_replicas, 10.0)
    canary = {version: 1 for version in versions.values() if version not in ("a1", "b1")}
    await mesh.until(lambda: counts(mesh) == {"a1": num_replicas, "b1": num_replicas, **canary})
    return mesh


async def run_shop(mesh: Mesh, versions: dict[str, str], num_replicas: int, percent: float | None = None) -> None:
    await mesh.run(functools.partial(shop, versions, num_replicas, percent))


def shop(versions: dict[str, str], num_replicas: int, percent: float | None = None) -> control_pb2.ApplicationSpec:
    """With these versions by deployment; the first is the ingress."""
    app = control_pb2.ApplicationSpec(name="app", ingress=next(iter(versions)), route_prefix="/")
    for name, version in versions.items():
        spec = app.deployments.add(name=name, version=version, code=version.encode())
        spec.options.num_replicas = num_replicas
        spec.options.graceful_shutdown_timeout_s = 20.0
    if percent is not None:
        app.traffic.percent = percent
    return app
