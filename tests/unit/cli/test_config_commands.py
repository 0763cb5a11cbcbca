"""The commands around configuration files: what reaches the controller, what is printed, the exit status."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mesh.cli import main, run_command
from mesh.client import rollout_wait
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeCluster

SHOP = """
import dataclasses
import mesh

@mesh.deployment(max_ongoing_requests=9)
class Front:
    def __init__(self, *args): ...

@dataclasses.dataclass
class Args:
    size: int = 1

app = Front.bind(Front.options(name="Stock").bind())

def build(args: Args):
    return Front.bind(args.size)

def lost(args: Args):
    raise LookupError("no such warehouse")

def nothing(args: Args):
    return None
"""

FILE = """
# The shop.
grpc_options: {port: 9100}
applications:
  - name: shop
    route_prefix: /shop
    import_path: shop_for_deploy:app
    deployments:
      - name: Stock
        num_replicas: 3
  - name: built
    route_prefix: null
    import_path: shop_for_deploy:build
    args: {size: 4}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: a module with applications, and a file that names them."""
    (tmp_path / "shop_for_deploy.py").write_text(SHOP)
    (tmp_path / "mesh.yaml").write_text(FILE.lstrip())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("shop_for_deploy", None)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, arguments)


def options(spec: control_pb2.ApplicationSpec) -> dict[str, control_pb2.DeploymentOptions]:
    return {each.name: each.options for each in spec.deployments}


def test_a_file_may_ask_for_a_share_of_the_replicas(cluster: FakeCluster, shop: Path) -> None:
    """`target_capacity` of the file reaches the controller (item 232)."""
    path = shop / "mesh.yaml"
    path.write_text(f"target_capacity: 50\n{path.read_text()}")
    assert invoke("deploy", "mesh.yaml").exit_code == 0
    assert cluster.controller.target_capacity == 50.0


def test_a_file_is_deployed_whole(cluster: FakeCluster, shop: Path) -> None:
    """Applications, options and gateways come from one file (items 242, 248, 249)."""
    result = invoke("deploy", "mesh.yaml")
    assert result.exit_code == 0, result.output
    first, second = cluster.controller.deployed
    assert (first.name, first.route_prefix, second.name, second.route_prefix) == ("shop", "/shop", "built", "")
    assert (options(first)["Stock"].num_replicas, options(first)["Front"].num_replicas) == (3, 1)
    assert {each.max_ongoing_requests for each in options(first).values()} == {9}
    assert cluster.controller.reply.gateway_options.grpc_port == 9100
    assert cluster.controller.config_file() == FILE.lstrip()
    assert result.output.splitlines() == [
        "Starting the mesh ...",
        "Deploying shop, built:",
        "  shop/Stock: 0 of 1 replicas running",
        "  shop/Front: 0 of 1 replicas running",
        "  shop: RUNNING",
        "  built/Front: 0 of 1 replicas running",
        "  built: RUNNING",
        "gRPC on h:9000",
    ]


def test_a_file_that_changes_nothing_says_so(cluster: FakeCluster, shop: Path) -> None:
    """What is as it was is not called a deployment (item 245)."""
    invoke("deploy", "mesh.yaml")
    again = invoke("deploy", "mesh.yaml")
    assert (again.exit_code, again.output.splitlines()[0]) == (0, "Unchanged: shop, built.")
    assert "Deploying" not in again.output
    (shop / "mesh.yaml").write_text(FILE.lstrip().replace("size: 4", "size: 5"))
    changed = invoke("deploy", "mesh.yaml").output.splitlines()
    assert changed[:2] == ["Unchanged: shop.", "Deploying built:"]


def test_a_file_that_changes_only_the_gateways_says_what_it_changes(cluster: FakeCluster, shop: Path) -> None:
    """As a rehearsal of it does (item 245)."""
    invoke("deploy", "mesh.yaml")
    (shop / "mesh.yaml").write_text(FILE.lstrip().replace("port: 9100", "port: 9100, request_timeout_s: 3"))
    rehearsal = invoke("deploy", "mesh.yaml", "--dry-run").output.splitlines()
    assert rehearsal == ["gateways: request_timeout_s (gateways are replaced, one node at a time)"]
    assert invoke("deploy", "mesh.yaml").output.splitlines()[:2] == [*rehearsal, "Unchanged: shop, built."]


def test_a_file_names_services_also_on_a_mesh_that_runs(cluster: FakeCluster, shop: Path) -> None:
    """The rehearsal shows what it will be; a section without them takes them back (items 52, 55)."""
    named, add = shop / "mesh.yaml", "tests.unit.protos.shop_pb2_grpc.add_ShopServicer_to_server"
    (shop / "shop_for_deploy.py").write_text(
        SHOP.replace("*args): ...", "*args): ...\n    def Price(self, request): ...")
    )
    assert invoke("deploy", "mesh.yaml").exit_code == 0
    without = named.read_text()
    named.write_text(without.replace("{port: 9100}", f"{{port: 9100, grpc_servicer_functions: [{add}]}}"))
    for text, methods in ((named.read_text(), 1), (without, 0)):
        named.write_text(text)
        assert "shop/Front: code" in invoke("deploy", "--dry-run", "mesh.yaml").output
        assert invoke("deploy", "mesh.yaml").exit_code == 0
        assert len(cluster.controller.deployed[-2].deployments[-1].grpc_methods) == methods


def test_a_dry_run_shows_the_changes_and_makes_none(cluster: FakeCluster, shop: Path) -> None:
    """Not even the mesh is started (item 242)."""
    assert invoke("deploy", "mesh.yaml", "--dry-run").output == (
        "No mesh is running. It would be started with shop, built.\n"
    )
    assert not cluster.actors
    invoke("deploy", "mesh.yaml")
    deployed = len(cluster.controller.deployed)
    assert invoke("deploy", "mesh.yaml", "--dry-run").output == "Nothing would change.\n"
    (shop / "mesh.yaml").write_text(FILE.lstrip().replace("size: 4", "size: 5"))
    assert invoke("deploy", "mesh.yaml", "--dry-run").output == (
        "built/Front: code or bound arguments (replicas are replaced)\n"
    )
    assert len(cluster.controller.deployed) == deployed


def test_what_a_file_no_longer_names_is_named(cluster: FakeCluster, shop: Path) -> None:
    """Applications that disappear are listed; those of programs stay (item 245)."""
    controller = cluster.run_controller()
    controller.add("mine", "RUNNING")
    invoke("deploy", "mesh.yaml")
    (shop / "mesh.yaml").write_text("applications: []")
    result = invoke("deploy", "mesh.yaml")
    assert result.output.splitlines()[:2] == [
        "Deleting built, which is no longer in the file.",
        "Deleting shop, which is no longer in the file.",
    ]
    assert [each.name for each in controller.reply.applications] == ["mine"]


def test_applications_of_another_file_stay_unless_they_are_pruned(cluster: FakeCluster, shop: Path) -> None:
    """A file owns what a file of its name deployed, so that two teams can share a mesh."""
    invoke("deploy", "mesh.yaml")
    (shop / "other.yaml").write_text("applications: []")
    result = invoke("deploy", "other.yaml")
    assert result.output.splitlines()[:2] == [
        "Keeping built, which is of mesh.yaml; --prune would delete it.",
        "Keeping shop, which is of mesh.yaml; --prune would delete it.",
    ]
    assert [each.name for each in cluster.controller.reply.applications] == ["shop", "built"]
    result = invoke("deploy", "other.yaml", "--prune")
    assert result.output.splitlines()[:2] == [
        "Deleting built, which is of mesh.yaml.",
        "Deleting shop, which is of mesh.yaml.",
    ]
    assert not cluster.controller.reply.applications


def test_an_import_path_leaves_other_applications_and_the_file_alone(cluster: FakeCluster, shop: Path) -> None:
    invoke("deploy", "mesh.yaml")
    result = invoke("deploy", "shop_for_deploy:build", "size=7", "--name", "more", "--route-prefix", "/more")
    assert result.exit_code == 0, result.output
    controller = cluster.controller
    assert [each.name for each in controller.reply.applications] == ["shop", "built", "more"]
    assert controller.config_file() == FILE.lstrip()
    assert controller.reply.applications[-1].deployer == control_pb2.DEPLOYER_PROGRAM


CALLED = """
import mesh

@mesh.deployment
class Called:
    def __call__(self): ...

app = Called.bind()
"""


def test_only_applications_that_http_can_call_compete_for_the_default_prefix(cluster: FakeCluster, shop: Path) -> None:
    """The second one that claims it is named with its line (item 248)."""
    (shop / "called_for_deploy.py").write_text(CALLED)
    paths = ("shop_for_deploy:app", "called_for_deploy:app", "shop_for_deploy:app", "called_for_deploy:app")
    entries = [f"  - {{name: a{number}, import_path: '{path}'}}" for number, path in enumerate(paths)]
    (shop / "mesh.yaml").write_text("\n".join(["applications:", *entries]))
    result = invoke("deploy", "mesh.yaml")
    assert (
        "mesh.yaml:5:5: applications[3].route_prefix: '/' is already used by applications[1]: it must be unique."
        in result.output
    )
    assert not cluster.actors
    (shop / "mesh.yaml").write_text("\n".join(["applications:", *entries[:3]]))
    assert invoke("deploy", "mesh.yaml").exit_code == 0
    assert [each.route_prefix for each in cluster.controller.deployed] == ["", "/", ""]
    sys.modules.pop("called_for_deploy")


def test_an_application_may_have_no_route(cluster: FakeCluster, shop: Path) -> None:
    assert invoke("deploy", "shop_for_deploy:app", "--route-prefix", "none").exit_code == 0
    assert cluster.controller.deployed[0].route_prefix == ""


def test_without_waiting(cluster: FakeCluster, shop: Path) -> None:
    assert invoke("deploy", "mesh.yaml", "--no-wait").output.splitlines()[-1] == "Stored: shop, built."


def test_all_failures_are_reported(cluster: FakeCluster, shop: Path) -> None:
    cluster.run_controller().deploy_result = ("DEPLOY_FAILED", "Front: no such file")
    result = invoke("deploy", "mesh.yaml")
    assert result.exit_code == 1
    assert result.output.splitlines()[-2:] == [
        "Error: Deploying application 'shop' failed: Front: no such file",
        "Deploying application 'built' failed: Front: no such file",
    ]


def test_ctrl_c_ends_the_waiting_only(cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout_wait, "until_all_running", interrupt)
    result = invoke("deploy", "mesh.yaml")
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == "The deployment continues; see `mesh status`."
    assert len(cluster.controller.reply.applications) == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("num_replicas: 3", "num_replicas: 0"), "mesh.yaml:9:23: applications[0].deployments[0].num_replicas: is exp"),
        (
            ("name: Stock", "name: Stok"),
            "mesh.yaml:8:15: applications[0].deployments[0].name: Deployment 'Stok' does not exist: application 'shop' "
            "has Stock, Front. Did you mean 'Stock'?",
        ),
        (("size: 4", "size: four"), "mesh.yaml:13:18: applications[1].args.size: Expected `int`, got `str`."),
        (("size: 4", "sise: 4"), "mesh.yaml:13:12: applications[1].args.sise: no such field: did you mean size?"),
        (
            ("deploy:build", "deploy:lost"),
            "mesh.yaml:12:18: applications[1].import_path: Building the application with shop_for_deploy:lost failed: "
            "LookupError: no such warehouse\n  File",
        ),
        (
            ("deploy:build", "deploy:nothing"),
            "mesh.yaml:12:18: applications[1].import_path: shop_for_deploy:nothing returned None, not an application",
        ),
        (
            ("deploy:build", "deploy:app"),
            "mesh.yaml:12:18: applications[1].import_path: shop_for_deploy:app is a bound application and takes no",
        ),
        (("shop_for_deploy:build", "no_such:app"), "mesh.yaml:12:18: applications[1].import_path: There is no module"),
    ],
)
def test_mistakes_are_named_and_nothing_is_deployed(
    cluster: FakeCluster, shop: Path, change: tuple[str, str], expected: str
) -> None:
    """One mistake means that nothing is stored (items 100, 249, 250)."""
    (shop / "mesh.yaml").write_text(FILE.lstrip().replace(*change))
    result = invoke("deploy", "mesh.yaml")
    assert result.exit_code == 1
    assert result.output.partition("Error: ")[2].startswith(expected)
    assert not cluster.controller.deployed


def test_mistakes_of_several_applications_come_together(cluster: FakeCluster, shop: Path) -> None:
    (shop / "mesh.yaml").write_text(FILE.lstrip().replace("deploy:app", "deploy:ap").replace("size: 4", "size: four"))
    lines = invoke("deploy", "mesh.yaml").output.splitlines()
    assert lines[0] == "Error: 2 mistakes in mesh.yaml:"
    assert [line.partition(": ")[0] for line in lines[1:]] == ["mesh.yaml:6:18", "mesh.yaml:13:18"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("mesh.yaml", "size=3"), "size=3 needs MODULE:APP; for mesh.yaml write it into the file."),
        (("mesh.yaml", "--name", "x"), "--name needs MODULE:APP; for mesh.yaml write it into the file."),
        (("nowhere.yaml",), "nowhere.yaml.\n"),
        (("mesh.yml",), "mesh.yml. Did you mean 'mesh.yaml'?"),
        (("shop_for_deploy:build", "size"), "'size' is not KEY=VALUE"),
        (("shop_for_deploy:build", "size=x"), "Wrong arguments for build: size: Expected `int`, got `str`."),
        (("shop_for_deploy:app", "--runtime-env-json", "{"), "The runtime environment cannot be read: "),
        (("shop_for_deploy:app", "--runtime-env-json", "3"), "The runtime environment must be a mapping, got 3."),
    ],
)
def test_wrong_arguments_on_the_command_line(
    cluster: FakeCluster, shop: Path, arguments: tuple[str, ...], expected: str
) -> None:
    for command in ("deploy", "run"):
        result = invoke(command, *arguments)
        assert result.exit_code == 1
        assert expected in result.output
    assert not cluster.controller.deployed


def test_deploy_needs_a_cluster_that_stays(cluster: FakeCluster, shop: Path) -> None:
    cluster.is_there = False
    result = invoke("deploy", "mesh.yaml")
    assert result.exit_code == 1
    assert "No Ray cluster is running here. Start one with `ray start --head`" in result.output


def test_run_of_a_file_serves_all_of_it_and_deletes_only_that(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C deletes what the command deployed (item 243)."""
    controller = cluster.run_controller()
    controller.add("mine", "RUNNING")

    def pause() -> None:
        assert [each.name for each in controller.reply.applications] == ["mine", "shop", "built"]
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "_pause", pause)
    result = invoke("run", "mesh.yaml")
    assert result.exit_code == 0, result.output
    assert [each.name for each in controller.reply.applications] == ["mine"]
    assert controller.config_file() is None


def test_config_shows_the_unchanged_file_or_one_application(cluster: FakeCluster, shop: Path) -> None:
    """`--name` shows one application (item 244)."""
    cluster.run_controller()
    assert (
        "No configuration file was deployed on this mesh. Deploy one with `mesh deploy FILE`."
        in invoke("config").output
    )
    invoke("deploy", "mesh.yaml")
    assert invoke("config").output == FILE.lstrip()
    part = yaml.safe_load(invoke("config", "--name", "built").output)
    assert part == {"name": "built", "route_prefix": None, "import_path": "shop_for_deploy:build", "args": {"size": 4}}
    assert "The file has no application 'x'. It has: shop, built." in invoke("config", "--name", "x").output


def test_build_writes_a_file_that_deploys_what_the_code_says(cluster: FakeCluster, shop: Path) -> None:
    """The written file and the code deploy the same (item 244)."""
    by_code = invoke("deploy", "shop_for_deploy:app")
    assert by_code.exit_code == 0, by_code.output
    assert invoke("build", "shop_for_deploy:app", "-o", "new.yaml").output == (
        "Wrote new.yaml. Deploy it with `mesh deploy new.yaml`.\n"
    )
    assert invoke("deploy", "new.yaml").exit_code == 0
    first, second = cluster.controller.deployed
    assert [(each.name, each.version, each.options) for each in first.deployments] == [
        (each.name, each.version, each.options) for each in second.deployments
    ]
    again = invoke("build", "shop_for_deploy:app", "-o", "new.yaml")
    assert (again.exit_code, again.output) == (
        1,
        "Error: new.yaml exists already: remove it, or choose another file.\n",
    )


def test_build_of_several_applications_with_arguments(cluster: FakeCluster, shop: Path) -> None:
    text = invoke("build", "shop_for_deploy:app", "shop_for_deploy:build", "size=3").output
    entries = yaml.safe_load(text)["applications"]
    assert [(each["name"], each["route_prefix"], each.get("args")) for each in entries] == [
        ("app1", "/app1", None),
        ("app2", "/app2", {"size": 3}),
    ]
    assert "must follow the MODULE:APP that it belongs to" in invoke("build", "size=3", "shop_for_deploy:build").output


def test_the_help_shows_how_commands_are_used() -> None:
    for command in main.main.commands:
        lines = invoke(command, "--help").output.splitlines()
        assert any(line.startswith(f"  mesh {command} ") for line in lines), command
