"""What a replica has in memory: the data plane, and nothing that only the control plane or a command needs."""

from __future__ import annotations

import subprocess
import sys

_NOT_FOR_REPLICAS = (
    "gateway",
    "mesh.cli.main",
    "mesh.cli.config_commands",
    "mesh.cli.run_target",
    "mesh.controller",
    "mesh.declarative",
    "mesh.controller.scaling.policy_actor",
    "msgspec",
    "numpy",
    "opentelemetry",
    "prometheus_client",
)


def test_a_replica_imports_nothing_that_it_does_not_need() -> None:
    """A dozen replicas on a node pay for every module a dozen times, in memory and in time until they are ready."""
    program = (
        "import sys; import ray; before = set(sys.modules); import mesh.replica.replica_actor;"
        "print(*(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    imported = ran.stdout.split()
    assert "mesh.link.callee_link" in imported
    assert not [
        name for name in imported if any(name == each or name.startswith(f"{each}.") for each in _NOT_FOR_REPLICAS)
    ]
