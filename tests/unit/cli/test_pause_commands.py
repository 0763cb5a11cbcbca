"""`mesh pause` and `mesh resume`: what reaches the controller, what is refused."""

import pytest
from click.testing import CliRunner

from mesh.cli import main
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Front", ["Front"])
    return controller


def test_one_deployment_or_all_of_an_application_are_paused_and_resumed(controller: FakeController) -> None:
    for words in (("pause", "shop"), ("pause", "shop", "Front"), ("resume", "shop")):
        done = CliRunner().invoke(main.main, words)
        assert (done.exit_code, done.output) == (0, "rollouts stand still\n")
    assert controller.pauses == [("shop", "", True), ("shop", "Front", True), ("shop", "", False)]


def test_an_unknown_application_is_refused(controller: FakeController) -> None:
    assert CliRunner().invoke(main.main, ["pause", "shpo"]).exit_code == 1
    assert controller.pauses == []
