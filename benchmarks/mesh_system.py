"""The scenario on the mesh."""

from typing import Any

import mesh
from benchmarks.scenario import Caller, Echo
from benchmarks.web_app import APP

ONGOING_MAX = 20_000
"""More than any row has in flight, so that no row measures a queue."""
RESULT_TIMEOUT_S = 120.0


class MeshSystem:
    """The echo behind the gateway, the caller and the web application, with the same isolation for all."""

    def __init__(self, gateway_port: int, *, is_isolated: bool) -> None:
        self.gateway_port = gateway_port
        self.http_port = gateway_port + 1
        mesh.start(grpc_options={"port": gateway_port}, http_options={"port": self.http_port})
        deploy = mesh.deployment(max_ongoing_requests=ONGOING_MAX, isolate_user_loop=is_isolated)
        mesh.run(deploy(Echo).bind(), name="echo", route_prefix="/echo")
        echo = mesh.get_app_handle("echo")
        self._caller = mesh.run(deploy(Caller).bind(echo, {}), name="caller", route_prefix="/caller")
        mesh.run(deploy(mesh.ingress(APP)()).bind(), name="web", route_prefix="/web")

    def call(self, method: str, *args: Any) -> Any:
        return self._caller.options(method_name=method).remote(*args).result(timeout_s=RESULT_TIMEOUT_S)

    def run(self, user_class: type, argument: Any, *, name: str, num_replicas: int) -> Any:
        deployed = mesh.deployment(num_replicas=num_replicas, ray_actor_options={"num_cpus": 0})(user_class)
        return mesh.run(deployed.bind(argument), name=name, route_prefix=f"/{name}")

    def delete(self, name: str) -> None:
        mesh.delete(name)

    def close(self) -> None:
        mesh.shutdown()
