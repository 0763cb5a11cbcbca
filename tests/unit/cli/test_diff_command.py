"""`mesh diff`: the changes by their effect, and an exit status for scripts."""

from pathlib import Path

import pytest

from mesh.cli.diff_command import _by_effect
from tests.unit.cli.test_config_commands import FILE, invoke, shop
from tests.unit.fakes.mesh_fakes import FakeCluster

__all__ = ["shop"]


def test_the_same_file_makes_no_difference(cluster: FakeCluster, shop: Path) -> None:
    assert invoke("deploy", "mesh.yaml").exit_code == 0
    same = invoke("diff", "mesh.yaml")
    assert (same.exit_code, same.output) == (0, "Nothing would change.\n")


def test_a_difference_is_status_1_and_changes_nothing(cluster: FakeCluster, shop: Path) -> None:
    invoke("deploy", "mesh.yaml")
    deployed = len(cluster.controller.deployed)
    (shop / "mesh.yaml").write_text(FILE.replace("size: 4", "size: 5").replace("num_replicas: 3", "num_replicas: 4"))
    changed = invoke("diff", "mesh.yaml")
    assert (changed.exit_code, changed.output.splitlines()) == (
        1,
        [
            "Replicas are replaced:",
            "  built/Front: code or bound arguments",
            "Nothing restarts:",
            "  shop/Stock: num_replicas: 3 -> 4",
            "To deploy this only while no one changes it, add --expect built=7 --expect shop=7",
        ],
    )
    assert len(cluster.controller.deployed) == deployed


def test_other_options_of_gateways_are_a_difference_if_the_file_has_any(cluster: FakeCluster, shop: Path) -> None:
    """A section says all of its options: one that it leaves out has its default again."""
    invoke("deploy", "mesh.yaml")
    cluster.controller.reply.gateway_options.request_timeout_s = 5.0
    cluster.controller.reply.gateway_options.http_port = 8009
    changed = invoke("diff", "mesh.yaml")
    assert (changed.exit_code, changed.output.splitlines()) == (
        1,
        ["Gateways are replaced, one node at a time:", "  gateways: request_timeout_s"],
    )
    assert "gateways: request_timeout_s (gateways are replaced" in invoke("deploy", "mesh.yaml", "--dry-run").output
    assert invoke("deploy", "mesh.yaml").exit_code == 0
    options = cluster.controller.reply.gateway_options
    assert (options.HasField("request_timeout_s"), options.grpc_port, options.http_port) == (False, 9100, 8009)


def test_without_a_mesh_everything_is_new(cluster: FakeCluster, shop: Path) -> None:
    fresh = invoke("diff", "mesh.yaml")
    assert (fresh.exit_code, fresh.output) == (1, "No mesh is running. It would be started with shop, built.\n")
    assert not cluster.actors


@pytest.mark.parametrize("is_there", [True, False])
def test_what_cannot_be_said_has_a_status_of_its_own(cluster: FakeCluster, shop: Path, is_there: bool) -> None:
    """So a script does not take a mistake for a difference."""
    cluster.is_there = is_there
    if is_there:
        (shop / "mesh.yaml").write_text("applications: 7")
    assert invoke("diff", "mesh.yaml").exit_code == 2


def test_changes_are_grouped_the_most_drastic_first() -> None:
    changes = [
        "a: target_capacity: 100 % -> 50 %",
        "a/D: user_config (replicas adopt it while they serve)",
        "a/E: new",
        "b: deleted",
    ]
    assert list(_by_effect(changes)) == [
        "Removed:",
        "  b",
        "New:",
        "  a/E",
        "Replicas adopt it while they serve:",
        "  a/D: user_config",
        "Other changes:",
        "  a: target_capacity: 100 % -> 50 %",
    ]
