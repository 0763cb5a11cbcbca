"""`mesh deploy` and its file on a real Ray: what changes, what stays, what is removed, and what users read."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from click.testing import CliRunner, Result

import mesh
from examples.weather import weather_pb2, weather_pb2_grpc
from mesh.cli import main
from mesh.client import mesh_lifecycle
from mesh.client.control_client import ConfigText
from mesh.v1.control_pb2 import DEPLOYER_FILE
from tests.documents import EXAMPLE_CONFIG, ROOT
from tests.e2e.conftest import Gateway
from tests.e2e.replicas import replicas, running
from tests.e2e.waiting import until

CODE = """
import dataclasses
import os
import re
import mesh
from {module}_words import GREETING

@mesh.deployment(ray_actor_options={{"num_cpus": 0}}, max_ongoing_requests=3)
class Stock:
    def __init__(self, size: int = 1):
        self.size = size
        self.config = None

    def reconfigure(self, config):
        self.config = config

    async def state(self):
        print("asked for its state")
        return {{"size": self.size, "config": self.config, "level": os.environ.get("LEVEL")}}

@mesh.deployment(ray_actor_options={{"num_cpus": 0}})
class Front:
    def __init__(self, stock):
        self.stock = stock

    async def __call__(self):
        return {{"greeting": GREETING, **await self.stock.state.remote()}}

@dataclasses.dataclass
class Args:
    size: int

app = Front.bind(Stock.bind())

def build(args: Args) -> mesh.Application:
    return Front.bind(Stock.bind(args.size))
"""


@dataclass
class Project:
    """A directory with a module of its own name, which tests change on disk, and a configuration file."""

    directory: Path
    module: str

    def write(self, greeting: str = "Hello", broken: bool = False) -> None:
        (self.directory / f"{self.module}.py").write_text(
            "raise KeyError('sugar')" if broken else CODE.format(module=self.module)
        )
        (self.directory / f"{self.module}_words.py").write_text(f"GREETING = {greeting!r}")

    def configure(self, text: str) -> None:
        (self.directory / "mesh.yaml").write_text(textwrap.dedent(text).replace("MODULE", self.module))

    def mesh(self, *arguments: str) -> Result:
        """The command in this process, as a new one would do it."""
        for name in [name for name in sys.modules if name.startswith(self.module)]:
            del sys.modules[name]
        sys.path_importer_cache.clear()
        return CliRunner().invoke(main.main, [*arguments])

    def deploy(self) -> Result:
        return self.mesh("deploy", str(self.directory / "mesh.yaml"), "--app-dir", str(self.directory))

    def deployed(self) -> Result:
        result = self.deploy()
        assert result.exit_code == 0, result.output
        return result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    project = Project(tmp_path, f"project_{uuid.uuid4().hex[:8]}")
    project.write()
    yield project
    client = mesh_lifecycle.require()
    client.apply([], ConfigText(""))
    until(lambda: not [each for each in client.status().applications if each.deployer == DEPLOYER_FILE], timeout_s=30)


def pids(app: str, deployment: str) -> set[int]:
    return {each.pid for each in running(app, deployment).values()}


def answer(app: str) -> dict[str, Any]:
    found: dict[str, Any] = mesh.get_app_handle(app).remote().result(timeout_s=20)
    return found


TWO_APPS = """
    applications:
      - name: first
        route_prefix: /first
        import_path: MODULE:app
        deployments:
          - name: Stock
            num_replicas: 1
      - name: second
        route_prefix: null
        import_path: MODULE:build
        args: {size: 3}
"""


def test_only_what_a_file_or_code_changes_is_changed(project: Project) -> None:
    """Deploying a file again restarts nothing else, unlike `run` (items 68, 185, 245, 249)."""
    project.configure(TWO_APPS)
    shown = project.deployed().output
    assert "  first/Stock: 1 of 1 replicas running" in shown
    assert shown.index("  first: RUNNING") > shown.index("Deploying first, second:")
    assert answer("second") == {"greeting": "Hello", "size": 3, "config": None, "level": None}
    every = [("first", "Front"), ("first", "Stock"), ("second", "Front"), ("second", "Stock")]
    before = {each: pids(*each) for each in every}

    assert project.deployed().output.splitlines()[0] == "Unchanged: first, second."
    assert {each: pids(*each) for each in every} == before

    project.configure(TWO_APPS.replace("num_replicas: 1", "num_replicas: 2"))
    planned = project.mesh(
        "deploy", str(project.directory / "mesh.yaml"), "--app-dir", str(project.directory), "--dry-run"
    )
    assert planned.output == "first/Stock: num_replicas: 1 -> 2 (nothing restarts)\n"
    compared = project.mesh("diff", str(project.directory / "mesh.yaml"), "--app-dir", str(project.directory))
    *lines, advice = compared.output.splitlines()
    assert (compared.exit_code, lines) == (1, ["Nothing restarts:", "  first/Stock: num_replicas: 1 -> 2"])
    assert re.fullmatch(r"To deploy this only while no one changes it, add --expect first=\d+", advice)
    late = project.mesh(
        "deploy", str(project.directory / "mesh.yaml"), "--app-dir", str(project.directory), "--expect", "first=1"
    )
    assert late.exit_code == 1
    assert f"its revision is {advice.rpartition('=')[2]} now, and it was 1" in late.output
    project.deployed()
    assert pids("first", "Stock") > before["first", "Stock"]
    assert {each: pids(*each) for each in every if each != ("first", "Stock")} == {
        each: before[each] for each in every if each != ("first", "Stock")
    }

    project.configure(TWO_APPS.replace("num_replicas: 1", "num_replicas: 2").replace("size: 3", "size: 4"))
    assert project.deployed().output.splitlines()[:2] == ["Unchanged: first.", "Deploying second:"]
    assert answer("second")["size"] == 4
    assert pids("second", "Front") == before["second", "Front"]
    assert not pids("second", "Stock") & before["second", "Stock"]

    project.write(greeting="Welcome")
    project.deployed()
    assert answer("first")["greeting"] == "Welcome"
    assert not pids("first", "Front") & before["first", "Front"]


def test_applications_that_a_file_no_longer_names_are_removed(project: Project, deploy: Callable[..., Any]) -> None:
    """Applications of programs stay (item 245)."""
    deploy(mesh.deployment(lambda: "mine").options(name="Mine", ray_actor_options={"num_cpus": 0}).bind(), "by_program")
    mine = pids("by_program", "Mine")
    project.configure(TWO_APPS)
    project.deployed()
    project.configure("# only one is left\n" + TWO_APPS[: TWO_APPS.index("      - name: second")])
    assert "Deleting second, which is no longer in the file." in project.deployed().output
    until(lambda: not replicas("second", "Front"), timeout_s=30)
    other = project.directory / "other.yaml"
    other.write_text("applications: []")
    kept = project.mesh("deploy", str(other)).output
    assert "Keeping first, which is of mesh.yaml; --prune would delete it." in kept
    project.deployed()
    assert set(mesh.status().applications) >= {"first", "by_program"}
    assert pids("by_program", "Mine") == mine
    assert project.mesh("config").output.startswith("# only one is left\n")
    assert "name: first" in project.mesh("config", "--name", "first").output
    assert "It has: first." in project.mesh("config", "--name", "second").output


def test_every_option_that_replicas_take_over_leaves_their_processes_alone(project: Project) -> None:
    """The options are those of tests/unit/options/deployments/test_option_effects.py (items 186–188)."""
    text = """
        applications:
          - name: first
            import_path: MODULE:app
            route_prefix: {route}
            deployments:
              - name: Stock
                user_config: {{mood: {mood}}}
                max_ongoing_requests: {number}
                max_queued_requests: {number}
                graceful_shutdown_wait_loop_s: {number}
                graceful_shutdown_timeout_s: {number}
                health_check_period_s: {number}
                health_check_timeout_s: {number}
                max_constructor_retry_count: {number}
        """
    project.configure(text.format(route="/old", mood="calm", number=4))
    project.deployed()
    before = pids("first", "Stock"), pids("first", "Front")
    project.configure(text.format(route="/new", mood="merry", number=8))
    project.deployed()
    assert answer("first")["config"] == {"mood": "merry"}
    assert (pids("first", "Stock"), pids("first", "Front")) == before
    (shown,) = [each for each in mesh_lifecycle.require().status().applications if each.name == "first"]
    assert shown.route_prefix == "/new"

    project.configure(text.format(route="/new", mood="merry", number=8) + "        isolate_user_loop: false\n")
    project.deployed()
    assert not pids("first", "Stock") & before[0]
    assert pids("first", "Front") == before[1]


def test_a_runtime_environment_reaches_the_import_and_the_replicas(project: Project) -> None:
    """Both see its variables (items 248, 250)."""
    code = CODE.format(module=project.module).replace("app = ", "assert os.environ['LEVEL']\napp = ")
    (project.directory / f"{project.module}.py").write_text(code)
    project.configure(
        f"""
        applications:
          - name: first
            import_path: MODULE:build
            args: {{size: 5}}
            runtime_env: {{env_vars: {{LEVEL: debug, PYTHONPATH: "{project.directory}:{os.getcwd()}"}}}}
        """
    )
    assert "Importing " in project.deployed().output
    assert answer("first") == {"greeting": "Hello", "size": 5, "config": None, "level": "debug"}
    before = pids("first", "Front")
    project.deployed()
    assert pids("first", "Front") == before
    project.configure((project.directory / "mesh.yaml").read_text().replace("size: 5", "size: five"))
    result = project.deploy()
    assert result.exit_code == 1
    assert "applications[0].args.size: Expected `int`, got `str`." in result.output


def test_a_failed_deploy_is_reported_and_changes_nothing(project: Project) -> None:
    """What ran before goes on with the same processes (items 249, 250)."""
    project.configure(TWO_APPS)
    project.deployed()
    state = {each: pids(*each) for each in [("first", "Stock"), ("second", "Front")]}
    path = project.directory / "mesh.yaml"

    project.configure(TWO_APPS.replace("name: Stock", "name: Stok"))
    result = project.deploy()
    assert result.exit_code == 1
    assert result.output.strip().endswith(
        f"{path}:7:15: applications[0].deployments[0].name: Deployment 'Stok' does not exist: application 'first' has "
        "Stock, Front. Did you mean 'Stock'?"
    )

    project.configure(TWO_APPS)
    project.write(broken=True)
    result = project.deploy()
    assert result.exit_code == 1
    assert f"{path}:5:18: applications[0].import_path: Importing '{project.module}' failed: KeyError: 'sugar'" in (
        result.output
    )
    assert f'  File "{project.directory}/{project.module}.py", line 1, in <module>' in result.output
    assert {each: pids(*each) for each in state} == state


def test_a_replica_that_fails_is_shown_while_it_happens(project: Project) -> None:
    project.configure(TWO_APPS.replace("{size: 3}", "{size: 3}\n        deployments: [{name: Front, user_config: 1}]"))
    result = project.deploy()
    assert result.exit_code == 1
    assert (
        "second/Front: 0 of 1 replicas running; mesh.exceptions.MeshException: user_config was given, but Front has no "
        "method `reconfigure" in result.output
    )
    assert (
        "Error: Deploying application 'second' failed: Front: mesh.exceptions.MeshException: user_config was given"
        in result.output
    )
    assert "first: RUNNING" in result.output


def test_a_file_written_from_code_runs_it_as_it_is(project: Project) -> None:
    """`mesh build` writes every option that the code sets (item 244)."""
    written = project.directory / "mesh.yaml"
    result = project.mesh("build", f"{project.module}:app", "-o", str(written), "--app-dir", str(project.directory))
    assert result.exit_code == 0, result.output
    assert "        max_ongoing_requests: 3\n        # num_replicas: 1" in written.read_text().replace("\r", "")
    project.deployed()
    assert answer("default")["greeting"] == "Hello"
    before = pids("default", "Stock")
    by_path = project.mesh("deploy", f"{project.module}:app", "--app-dir", str(project.directory))
    assert by_path.exit_code == 0, by_path.output
    assert pids("default", "Stock") == before
    mesh.delete("default")


def test_run_of_a_file_ends_with_ctrl_c_and_leaves_nothing(project: Project) -> None:
    """The command runs in a process of its own, and does not replace what a file has deployed (item 243).

    It shows what replicas print.
    """
    project.configure(TWO_APPS)
    project.deployed()
    refused = project.mesh("run", f"{project.module}:app", "--name", "first", "--app-dir", str(project.directory))
    assert "'first' (deployed by a configuration file)" in refused.output
    assert "--replace" in refused.output
    assert answer("first")["greeting"] == "Hello"
    arguments = ["run", "--replace", str(project.directory / "mesh.yaml"), "--app-dir", str(project.directory)]
    command = subprocess.Popen(
        [sys.executable, "-c", "from mesh.cli.main import main; main()", *arguments],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    lines = []
    for line in command.stdout:
        lines.append(line.rstrip())
        if line.startswith("Running;"):
            assert answer("first")["greeting"] == "Hello"
        if line.endswith(" stdout: asked for its state\n"):
            break
    command.send_signal(signal.SIGINT)
    rest, _ = command.communicate(timeout=40)
    assert (command.returncode, rest.split()) == (0, ["Stopping", "..."]), lines
    assert not {"first", "second"} & set(mesh.status().applications)


def test_the_example_s_file_serves_stock_clients(project: Project, channel: grpc.Channel, gateway: Gateway) -> None:
    """On the port of the run: with its own one the file would give the gateway another."""
    text = Path(EXAMPLE_CONFIG).read_text()
    file = project.directory / "weather.yaml"
    file.write_text(text.replace("port: 9000", f"port: {gateway.grpc_port}"))
    result = project.mesh("deploy", str(file), "--app-dir", str(ROOT))
    assert result.exit_code == 0, result.output
    request = weather_pb2.ForecastRequest(city="midtown", hour=12)
    stub = weather_pb2_grpc.WeatherStub(channel)
    assert stub.Forecast(request, metadata=[("application", "weather")], timeout=20).celsius
    assert len(running("weather", "Forecaster")) == 2


def test_an_environment_that_cannot_be_made_is_said_in_a_line(project: Project) -> None:
    """The command fails with the reason (item 250)."""
    environment = '{"working_dir": "file:///nowhere/at_all.zip"}'
    result = project.mesh("deploy", f"{project.module}:app", "--runtime-env-json", environment)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith(
        "Error: The runtime environment {'working_dir': 'file:///nowhere/at_all.zip'} cannot be made:"
    )
