"""The systems that are compared: the title, the Python and the flags of each."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVE_ENVIRONMENT = ROOT / ".venv-serve"
SERVE_REQUIREMENTS = ("ray[serve]==2.60.0", "grpcio", "numpy", "uvloop")

COMMON_FLAGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # With Ray's default of 15, a busy client takes the processor time of all actors.
    "RAY_worker_niceness": "0",
}
SERVE_TUNED_FLAGS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # The default of 4 MiB is less than the array.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 2**20),
}


@dataclass(frozen=True)
class System:
    """One column of the table."""

    name: str
    title: str
    python: str = sys.executable
    flags: dict[str, str] = field(default_factory=dict)
    has_cluster: bool = True
    is_web_server: bool = False
    has_memory_rows: bool = False
    has_rows_without_ray: bool = False
    has_operation_rows: bool = False

    def environment(self, marker: dict[str, str]) -> dict[str, str]:
        """The environment of its processes, without flags of Serve or the mesh from the caller's shell."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MESH_"))}
        # Serve's packages are compiled to bytecode at installation, so the mesh may keep its bytecode too.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**inherited, "PYTHONPATH": str(ROOT), **COMMON_FLAGS, **self.flags, **marker}


SERVE_PYTHON = str(SERVE_ENVIRONMENT / "bin" / "python")
SYSTEMS = (
    System("mesh", "mesh", has_memory_rows=True, has_rows_without_ray=True, has_operation_rows=True),
    System("mesh-inline", "mesh inline"),
    System("raw", "raw grpc.aio", has_cluster=False),
    System("uvicorn", "uvicorn", has_cluster=False, is_web_server=True),
    System("serve", "Serve", SERVE_PYTHON, has_operation_rows=True),
    System("serve-tuned", "Serve tuned", SERVE_PYTHON, SERVE_TUNED_FLAGS, has_operation_rows=True),
)


def build_serve_environment() -> None:
    """Create the environment of Ray Serve, with the pinned versions that the mesh uses too; again when they change."""
    constraints = ROOT / "constraints.txt"
    wanted = "\n".join(SERVE_REQUIREMENTS) + "\n" + constraints.read_text()
    stamp = SERVE_ENVIRONMENT / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"building {SERVE_ENVIRONMENT.name} with {SERVE_REQUIREMENTS[0]}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", SERVE_ENVIRONMENT], check=True)
    install = [SERVE_PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", constraints, *SERVE_REQUIREMENTS], check=True)
    stamp.write_text(wanted)
