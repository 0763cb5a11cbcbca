"""`mesh nodes`, `mesh cordon`, `mesh uncordon` and `mesh drain`: what reaches the controller, and what is shown."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

from mesh.cli import main
from mesh.client import drain_wait
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController

NODE = "3f2a91bc" * 7


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    controller = cluster.run_controller()
    controller.reply.nodes.add(node_id="0" * 56, address="10.0.0.3", is_head=True, status="READY", replicas=1)
    controller.reply.nodes.add(node_id=NODE, address="10.0.0.4", status="READY", replicas=7)
    return controller


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, arguments)


def moving(controller: FakeController, *steps: tuple[int, str, str]) -> None:
    """At each look the drain is at the next step: replicas that have moved, the status, what it waits for."""
    left = list(steps)

    def move(reply: control_pb2.StatusReply) -> None:
        node = reply.nodes[1]
        moved, node.status, node.message = left.pop(0) if len(left) > 1 else left[0]
        node.replicas_to_move, node.moved_replicas, node.replicas = 7, moved, 7 - moved

    controller.on_status = move


def test_nodes_are_listed_for_people_and_for_programs(controller: FakeController) -> None:
    assert invoke("nodes").output.splitlines() == [
        "NAME           STATUS  DETAILS",
        "node 00000000  READY   10.0.0.3; head; 1 replica",
        "node 3f2a91bc  READY   10.0.0.4; 7 replicas",
    ]
    assert [each["node_id"] for each in json.loads(invoke("nodes", "--json").output)] == ["0" * 56, NODE]


def test_the_status_shows_nodes_that_do_not_take_replicas(controller: FakeController) -> None:
    assert "CORDONED" not in invoke("status").output
    controller.cordon(NODE)
    (line,) = [each for each in invoke("status").output.splitlines() if each.startswith("node ")]
    assert line.split(maxsplit=3) == ["node", "3f2a91bc", "CORDONED", "10.0.0.4; 7 replicas"]


def test_a_cordon_is_set_and_taken_back(controller: FakeController) -> None:
    assert invoke("cordon", "10.0.0.4").output == (
        "Node 3f2a91bc (10.0.0.4) takes no new replicas. It has 7 replicas.\n"
    )
    assert invoke("cordon", NODE).output == "Nothing changes: Node 3f2a91bc (10.0.0.4) is CORDONED.\n"
    assert invoke("uncordon", NODE).output == "Node 3f2a91bc (10.0.0.4) takes new replicas again.\n"
    assert invoke("uncordon", NODE).output == "Nothing changes: Node 3f2a91bc (10.0.0.4) is not cordoned.\n"
    assert (controller.cordoned, controller.uncordoned) == ([("10.0.0.4", False), (NODE, False)], [NODE, NODE])


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_an_unknown_node_is_refused(controller: FakeController, command: str) -> None:
    done = invoke(command, "10.0.0.9")
    assert (done.exit_code, done.output) == (1, "Error: There is no node '10.0.0.9'.\n")


def test_a_drain_shows_its_progress_and_its_end(controller: FakeController) -> None:
    moving(controller, (0, "DRAINING", ""), (3, "DRAINING", ""), (7, "DRAINING", ""), (7, "DRAINED", ""))
    done = invoke("drain", "10.0.0.4")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "Node 3f2a91bc (10.0.0.4) is being drained. It has 7 replicas.",
        "  0 of 7 replicas moved",
        "  3 of 7 replicas moved",
        "  7 of 7 replicas moved; its gateway sends its clients away",
        "  7 of 7 replicas moved",
        "Node 3f2a91bc is drained.",
    ]
    assert controller.cordoned == [("10.0.0.4", True)]


def test_a_drain_that_is_not_waited_for_returns_at_once(controller: FakeController) -> None:
    done = invoke("drain", NODE, "--no-wait")
    assert (done.exit_code, len(done.output.splitlines())) == (0, 1)


def test_a_drain_without_room_says_why_and_how_it_ends(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = replace(settings(), client=replace(settings().client, drain_stuck_timeout_s=0.0))
    monkeypatch.setattr(drain_wait, "settings", lambda: impatient)
    moving(controller, (2, "DRAINING", "shop/Stock: 1 of 4 replicas wait for room"))
    done = invoke("drain", NODE)
    assert done.exit_code == 1
    assert "2 of 7 replicas moved. shop/Stock: 1 of 4 replicas wait for room" in done.output
    assert "`mesh uncordon 3f2a91bc` ends it" in done.output


def test_a_drain_takes_no_longer_than_it_may(controller: FakeController) -> None:
    moving(controller, (2, "DRAINING", ""))
    done = invoke("drain", NODE, "--timeout", "0.01")
    assert done.exit_code == 1
    assert "Node 3f2a91bc is not drained after 0.01 s: 2 of 7 replicas moved." in done.output


def test_a_drain_that_someone_calls_off_does_not_go_on(controller: FakeController) -> None:
    moving(controller, (2, "DRAINING", ""), (2, "READY", ""))
    done = invoke("drain", NODE)
    assert done.exit_code == 1
    assert done.output.endswith("Error: The drain of node 3f2a91bc was called off: 2 of 7 replicas moved.\n")


def test_ctrl_c_leaves_the_drain_going_on_and_says_so(controller: FakeController) -> None:
    def interrupt(reply: control_pb2.StatusReply) -> None:
        raise KeyboardInterrupt

    controller.on_status = interrupt
    done = invoke("drain", NODE)
    assert done.exit_code == 130
    assert done.output.endswith("It goes on; see `mesh nodes`. `mesh uncordon 3f2a91bc` ends it.\n")
    assert controller.uncordoned == []


def test_a_drained_head_says_what_stays(controller: FakeController) -> None:
    controller.on_status = lambda reply: setattr(reply.nodes[0], "status", "DRAINED")
    assert "Its gateway and the controller stay" in invoke("drain", "0" * 56).output
