"""`mesh scale`, `mesh pause` and `mesh resume`: what reaches the controller, what is refused."""

import pytest
from click.testing import CliRunner, Result

from mesh.cli import main
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Front", ["Front"])
    return controller


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, ["scale", *arguments])


def test_the_number_reaches_the_controller_and_is_waited_for(controller: FakeController) -> None:
    done = invoke("shop", "Front", "5")
    assert (done.exit_code, controller.scaled) == (0, [("shop", "Front", 5)])
    assert done.output.splitlines()[0] == "shop/Front: more"
    assert "shop: RUNNING" in done.output


def test_a_change_of_the_number_is_computed_where_it_is_stored(controller: FakeController) -> None:
    """Two people who add a replica each get two."""
    assert invoke("shop", "Front", "--by", "-1").exit_code == 0
    assert controller.scaled == [("shop", "Front", -1)]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("shop", "Front", "-1"), 2),
        (("shop", "Front"), 1),
        (("shop", "Front", "2", "--by", "1"), 1),
        (("shop", "Front", "--by", "0"), 1),
        (("shpo", "Front", "2"), 1),
    ],
)
def test_what_makes_no_sense_reaches_nothing(
    controller: FakeController, arguments: tuple[str, ...], status: int
) -> None:
    assert invoke(*arguments).exit_code == status
    assert controller.scaled == []


def test_one_deployment_or_all_of_an_application_are_paused_and_resumed(controller: FakeController) -> None:
    for words in (("pause", "shop"), ("pause", "shop", "Front"), ("resume", "shop")):
        done = CliRunner().invoke(main.main, words)
        assert (done.exit_code, done.output) == (0, "rollouts stand still\n")
    assert controller.pauses == [("shop", "", True), ("shop", "Front", True), ("shop", "", False)]


def test_an_unknown_application_is_not_paused(controller: FakeController) -> None:
    assert CliRunner().invoke(main.main, ["pause", "shpo"]).exit_code == 1
    assert controller.pauses == []


def test_the_usage_says_that_the_number_may_be_left_out() -> None:
    """With --by."""
    assert "[OPTIONS] APP DEPLOYMENT [N]" in invoke("--help").output
