"""The process that runs one system once: it starts Ray, deploys the scenario, measures and stops everything.

It prints every figure as a JSON line; `compare` starts it in the system's environment and reads them.
"""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import ray

from benchmarks import memory
from benchmarks.measured import Deployed, measure_gateway, measure_handles, roles_of
from benchmarks.measured_web import json_port, measure_deployed_web, measure_json
from benchmarks.operations import Operated, measure_operations
from benchmarks.processes import resident_bytes
from benchmarks.rows import AT_GATEWAY, Figure

FIGURE_MARK = "figure "
LOGICAL_CPUS = 8
_SETTLE_S = 2.0


class Closable(Deployed, Operated, Protocol):
    def close(self) -> None: ...


def deploy(system: str, port: int) -> Closable:
    """The named system, running. Its module is imported only here, where its packages are installed."""
    if system.startswith("mesh"):
        from benchmarks.mesh_system import MeshSystem

        return MeshSystem(port, is_isolated=system == "mesh")
    from benchmarks.serve_system import ServeSystem

    return ServeSystem(port, is_tuned=system == "serve-tuned")


def free_port_pair() -> int:
    """A free port whose next port is free too, below the range of ephemeral ports."""
    for port in range(20_000, 30_000, 2):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no two adjacent ports are free")


def bare_actor_bytes() -> int:
    """Resident memory of a Ray actor that only imports grpc."""

    class Bare:
        def resident_bytes(self) -> int:
            import grpc.aio  # noqa: F401

            return resident_bytes(os.getpid())

    actor = ray.remote(Bare).remote()
    try:
        # A worker imports another 9 MB of Ray shortly after its start; replicas have done that already.
        ray.get(actor.resident_bytes.remote())
        time.sleep(_SETTLE_S)
        return ray.get(actor.resident_bytes.remote())
    finally:
        ray.kill(actor)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    system = deploy(arguments.system, free_port_pair())
    try:
        roles = roles_of(system)
        # Memory comes first: the arrays of the handle rows leave pages of the object store in the replica's RSS.
        if arguments.memory:
            amounts = memory.QUICK if arguments.quick else memory.FULL
            yield from memory.measure_memory(system, roles, sys.executable, bare_actor_bytes, amounts)
        yield from measure_handles(system, roles, arguments.seconds)
        yield from measure_gateway(system, roles, sys.executable, arguments.seconds)
        yield from measure_deployed_web(system, roles, arguments.seconds)
        if arguments.system.startswith("mesh"):
            at_gateway = {name: roles[name] for name in AT_GATEWAY}
            yield from measure_json(json_port(f"127.0.0.1:{system.http_port}", at_gateway), arguments.seconds)
        if arguments.operations:
            yield from measure_operations(system)
    finally:
        system.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=["mesh", "mesh-inline", "serve", "serve-tuned"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--operations", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    ray.init("local", num_cpus=LOGICAL_CPUS, include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        for row, value in measure(arguments):
            print(FIGURE_MARK + json.dumps([row, value]), flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
