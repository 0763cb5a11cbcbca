"""`mesh backup` and `mesh restore`: the file and its mode, what reaches the controller, what is refused."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mesh.cli import backup_commands, main
from mesh.stored.backup_file import from_file, to_file
from mesh.stored.schema_version import SCHEMA_VERSION
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application
from tests.unit.fakes.mesh_fakes import FakeCluster


@pytest.fixture
def cluster(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    monkeypatch.chdir(tmp_path)
    return cluster


def saved() -> control_pb2.MeshBackup:
    state = control_pb2.DesiredState(
        schema_version=SCHEMA_VERSION,
        applications=[application("shop")],
        gateways=control_pb2.GatewayOptions(grpc_port=0, processes=2),
    )
    return control_pb2.MeshBackup(state=state, servicer_functions=b"packed functions")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, arguments)


def test_the_file_is_for_its_owner_only_and_says_what_it_contains(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.backup_reply = saved()
    Path("shop.backup.part").touch(mode=0o644)
    done = invoke("backup", "shop.backup")
    assert done.exit_code == 0
    assert done.output.startswith("Wrote shop.backup: shop, ")
    assert "environment variables of all applications, with the secrets in them" in done.output
    path = Path("shop.backup")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert from_file(path.read_bytes(), "shop.backup") == saved()
    assert [each.name for each in Path().iterdir()] == ["shop.backup"], "nothing else is left"


def test_a_file_that_exists_is_not_overwritten(cluster: FakeCluster) -> None:
    cluster.run_controller()
    Path("shop.backup").write_text("the only copy")
    refused = invoke("backup", "shop.backup")
    assert (refused.exit_code, Path("shop.backup").read_text()) == (1, "the only copy")
    assert "shop.backup exists. Choose another file." in refused.output


def test_packages_that_only_this_cluster_has_are_named(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.backup_reply = saved()
    actor = controller.backup_reply.state.applications[0].deployments[0].options.actor
    actor.runtime_env_json = json.dumps(
        {"working_dir": "gcs://_ray_pkg_1.zip", "py_modules": ["s3://bucket/a.zip"], "env_vars": {"A": "b"}}
    )
    shown = invoke("backup", "shop.backup").output
    assert "Not in the file: gcs://_ray_pkg_1.zip, which shop/Model runs in." in shown
    assert "s3://" not in shown


def test_a_restore_reaches_the_mesh_that_runs_and_waits(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Model", ["Model"])
    Path("shop.backup").write_bytes(to_file(saved()))
    done = invoke("restore", "shop.backup", "--replace")
    assert done.exit_code == 0
    assert controller.restored == [(saved(), True, False)]
    assert done.output.splitlines()[:2] == [
        "The gateways go on with their own options, which differ in grpc_port, processes.",
        "shop: new",
    ]
    assert "shop: RUNNING" in done.output
    assert invoke("restore", "shop.backup", "--no-wait").output.splitlines()[-1] == "Stored: shop."


def test_a_restore_names_the_cordons_that_it_does_not_restore(cluster: FakeCluster) -> None:
    cluster.run_controller()
    backup = saved()
    backup.state.cordons.add(node_id="3f2a91bc" * 7)
    Path("shop.backup").write_bytes(to_file(backup))
    done = invoke("restore", "shop.backup", "--no-wait")
    assert "Cordons are not restored. When the file was written there were some of: 3f2a91bc.\n" in done.output


def test_a_dry_run_changes_nothing_and_starts_nothing(cluster: FakeCluster) -> None:
    Path("shop.backup").write_bytes(to_file(saved()))
    assert (
        invoke("restore", "shop.backup", "--dry-run").output == "No mesh is running. It would be started with shop.\n"
    )
    assert not cluster.actors
    controller = cluster.run_controller(saved().state.gateways)
    assert invoke("restore", "shop.backup", "--dry-run").output == "shop: new\n"
    assert controller.restored == [(saved(), False, True)]


def test_an_empty_cluster_gets_the_gateways_and_functions_of_the_file(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[control_pb2.GatewayOptions] = []
    monkeypatch.setattr(backup_commands.port_check, "require_free", checked.append)
    Path("shop.backup").write_bytes(to_file(saved()))
    done = invoke("restore", "shop.backup", "--no-wait")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "Starting the mesh ...")
    assert checked == [saved().state.gateways]
    assert cluster.controller.reply.gateway_options == saved().state.gateways
    assert cluster.kv["servicer_functions"] == b"packed functions"
    assert len(cluster.controller.restored) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"applications: []\n", "is not a backup of a mesh"),
        (to_file(saved())[:-1], "is damaged"),
        (to_file(saved()).replace(b'"schema_version": 1', b'"schema_version": 99'), "by a newer version of the mesh"),
    ],
)
def test_what_is_no_whole_backup_reaches_nothing(cluster: FakeCluster, content: bytes, message: str) -> None:
    controller = cluster.run_controller()
    Path("shop.backup").write_bytes(content)
    refused = invoke("restore", "shop.backup")
    assert refused.exit_code == 1
    assert message in refused.output
    assert controller.restored == []
