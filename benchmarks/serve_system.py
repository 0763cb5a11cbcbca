"""The scenario on Ray Serve. Runs in Serve's own environment and imports nothing of the mesh."""

from typing import Any

from ray import serve

from benchmarks.scenario import Caller, Echo
from benchmarks.web_app import APP

ONGOING_MAX = 20_000
"""More than any row has in flight, so that no row measures a queue."""
RESULT_TIMEOUT_S = 120.0
SERVICER = "benchmarks.echo_pb2_grpc.add_BenchServicer_to_server"


class Web:
    """Only its application serves requests."""


class ServeSystem:
    """The same applications; "tuned" has what Serve's documentation recommends besides environment flags."""

    def __init__(self, gateway_port: int, *, is_tuned: bool) -> None:
        self.gateway_port = gateway_port
        self.http_port = gateway_port + 1
        logging = {"enable_access_log": False, "log_level": "WARNING"} if is_tuned else None
        call_options = {"request_serialization": "pickle", "response_serialization": "pickle"} if is_tuned else {}
        serve.start(
            http_options={"port": self.http_port},
            grpc_options={"port": gateway_port, "grpc_servicer_functions": [SERVICER]},
            logging_config=logging,
        )
        deploy = serve.deployment(max_ongoing_requests=ONGOING_MAX, logging_config=logging)
        echo = serve.run(deploy(Echo).bind(), name="echo", route_prefix="/echo")
        self._caller = serve.run(deploy(Caller).bind(echo, call_options), name="caller", route_prefix="/caller")
        serve.run(deploy(serve.ingress(APP)(Web)).bind(), name="web", route_prefix="/web")
        # Tuned handles need a running event loop, which the driver lacks, or a router with a loop of its own.
        self._caller._init(_run_router_in_separate_loop=True)

    def call(self, method: str, *args: Any) -> Any:
        return self._caller.options(method_name=method).remote(*args).result(timeout_s=RESULT_TIMEOUT_S)

    def run(self, user_class: type, argument: Any, *, name: str, num_replicas: int) -> Any:
        deployed = serve.deployment(num_replicas=num_replicas, ray_actor_options={"num_cpus": 0})(user_class)
        handle = serve.run(deployed.bind(argument), name=name, route_prefix=f"/{name}")
        if not handle.is_initialized:
            handle._init(_run_router_in_separate_loop=True)
        return handle

    def delete(self, name: str) -> None:
        serve.delete(name)

    def close(self) -> None:
        """Does nothing: Serve's tuned shutdown takes 30 s, and its cluster ends with this process."""
