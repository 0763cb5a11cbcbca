"""Every change that was computed from what someone has read is sent with the revisions of that."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

import mesh
from mesh import api
from mesh.cli import main
from mesh.client import mesh_lifecycle
from mesh.cluster.keys import TOKEN_KEY
from mesh.exceptions import ChangeConflictError
from mesh.wire.mesh_token import mesh_id
from tests.unit.fakes.mesh_fakes import FakeCluster


@mesh.deployment
class Model:
    def __call__(self) -> None: ...


@pytest.fixture
def cluster(cluster: FakeCluster) -> FakeCluster:
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Model", ["Model"])
    controller.reply.applications[0].revision = 41
    controller.expected.clear()
    return cluster


@pytest.mark.parametrize(
    "change",
    [
        lambda: mesh.run(Model.bind(), name="shop"),
        lambda: api.run_many([mesh.RunTarget(Model.bind(), name="shop")]),
        lambda: mesh.delete("shop"),
    ],
    ids=["run", "run_many", "delete"],
)
def test_a_program_changes_what_it_has_found(cluster: FakeCluster, change: Callable[[], Any]) -> None:
    """The application as it was when the call began (items 67, 127)."""
    change()
    assert cluster.controller.expected[0] == {"shop": 41}


def test_a_program_s_first_application_replaces_none_that_another_one_deploys_meanwhile(cluster: FakeCluster) -> None:
    cluster.actors.clear()
    mesh.run(Model.bind(), name="shop")
    assert cluster.controller.expected[0] == {}


@pytest.mark.parametrize(
    "words",
    ["scale shop Model 5", "pause shop", "resume shop Model", "delete shop"],
)
def test_commands_change_what_they_have_read(cluster: FakeCluster, words: str) -> None:
    assert CliRunner().invoke(main.main, words.split()).exit_code == 0
    assert cluster.controller.expected[0] == {"shop": 41}


def test_a_difference_is_added_to_whatever_there_is(cluster: FakeCluster) -> None:
    assert CliRunner().invoke(main.main, ["scale", "shop", "Model", "--by", "1"]).exit_code == 0
    assert cluster.controller.expected == [None]


def test_a_shutdown_deletes_what_was_shown_and_a_confirmed_one_all(cluster: FakeCluster) -> None:
    assert CliRunner().invoke(main.main, ["shutdown"], input="y\n").exit_code == 0
    assert cluster.controller.expected == [{"shop": 41}]
    cluster.run_controller()
    assert CliRunner().invoke(main.main, ["shutdown", "--yes"]).exit_code == 0
    assert cluster.controller.expected == [None]


def test_a_shutdown_is_refused_where_another_mesh_has_started_while_it_asked(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of that one is touched (item 60)."""
    cluster.kv[TOKEN_KEY] = b"old"
    seen = mesh_lifecycle.look(cluster.controller)  # type: ignore[arg-type]
    cluster.kv[TOKEN_KEY] = b"new"
    actors, keys = dict(cluster.actors), dict(cluster.kv)

    def refuse_others(of_mesh: bytes, expected: object) -> None:
        if of_mesh != mesh_id(cluster.kv[TOKEN_KEY]):
            raise ChangeConflictError("The mesh that was to end has ended.")

    monkeypatch.setattr(cluster.controller, "shutdown", refuse_others)
    with pytest.raises(ChangeConflictError):
        mesh_lifecycle.destroy(cluster.controller, seen)  # type: ignore[arg-type]
    assert (cluster.actors, cluster.kv) == (actors, keys)
