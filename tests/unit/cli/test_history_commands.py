"""`mesh rollback` and `mesh history`: what reaches the controller, what is printed, the exit status."""

import json

import pytest
from click.testing import CliRunner, Result

from mesh.cli import main
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController

HISTORY = control_pb2.HistoryReply(
    rollback_unix_time_s=0.0,
    records=[
        control_pb2.DeployRecord(unix_time_s=86400.0, author="ann@host", is_rollback=True, lines=["shop: a", "b"]),
        control_pb2.DeployRecord(unix_time_s=60.0, deployer=control_pb2.DEPLOYER_FILE, lines=["shop: new"]),
    ],
)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Front", ["Front"])
    controller.history_reply.CopyFrom(HISTORY)
    return controller


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, arguments)


def test_the_history_shows_when_who_and_what(controller: FakeController) -> None:
    assert invoke("history", "shop").output.splitlines() == [
        "1970-01-02 00:00:00  rollback  ann@host",
        "    shop: a",
        "    b",
        "1970-01-01 00:01:00  file  unknown",
        "    shop: new",
        "`mesh rollback shop` goes back to the version deployed at 1970-01-01 00:00:00.",
    ]


def test_the_history_says_that_there_is_nothing_to_go_back_to(controller: FakeController) -> None:
    controller.history_reply.ClearField("rollback_unix_time_s")
    assert "there is nothing to go back to" in invoke("history", "shop").output
    failed = invoke("rollback", "shop")
    assert (failed.exit_code, controller.rolled_back) == (1, [])
    assert "no version to go back to" in failed.output


def test_the_history_for_programs_has_all_keys(controller: FakeController) -> None:
    assert json.loads(invoke("history", "shop", "--json").output) == {
        "deploys": [
            {
                "unix_time_s": 86400.0,
                "author": "ann@host",
                "how": "rollback",
                "changes": ["shop: a", "b"],
                "rolled_back_because": None,
            },
            {"unix_time_s": 60.0, "author": None, "how": "file", "changes": ["shop: new"], "rolled_back_because": None},
        ],
        "rollback_unix_time_s": 0.0,
    }


def test_a_rollback_shows_what_changes_and_waits_until_it_runs(controller: FakeController) -> None:
    done = invoke("rollback", "shop")
    assert (done.exit_code, controller.rolled_back) == (0, ["shop"])
    assert done.output.splitlines()[0] == "shop/Front: code"
    assert "shop: RUNNING" in done.output


def test_a_promotion_shows_what_changes_and_waits_until_it_runs(controller: FakeController) -> None:
    assert invoke("promote", "shop", "--dry-run").output == "shop: canary ended\n"
    assert controller.promoted == []
    done = invoke("promote", "shop")
    assert (done.exit_code, controller.promoted) == (0, ["shop"])
    assert "shop: RUNNING" in done.output


def test_what_is_changed_is_what_was_read(controller: FakeController) -> None:
    """Two people who roll back at once do not go forward again."""
    controller.reply.applications[0].revision = 41
    for command in ("rollback", "promote", "delete"):
        invoke(command, "shop", *(["--dry-run"] if command != "delete" else []))
        assert controller.expected[-1] == {"shop": 41}


def test_a_dry_run_rolls_nothing_back(controller: FakeController) -> None:
    assert invoke("rollback", "shop", "--dry-run").output == "shop/Front: code\n"
    assert controller.rolled_back == []


def test_without_wait_it_returns_at_once(controller: FakeController) -> None:
    controller.add("shop", "DEPLOYING", "", "Front", ["Front"])
    assert invoke("rollback", "shop", "--no-wait").output.splitlines()[-1] == "Stored: shop."


@pytest.mark.parametrize("command", ["rollback", "history"])
def test_an_unknown_application_is_named(controller: FakeController, command: str) -> None:
    failed = invoke(command, "shpo")
    assert failed.exit_code == 1
    assert "There is no application 'shpo'. There are: shop. Did you mean" in failed.output
