"""mesh.client.rollout_wait: what API calls wait for, and what they make of failures (items 57, 66, 76)."""

import logging
from collections.abc import Callable

import pytest

from mesh.client import rollout_wait
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeController, client_settings


def later(controller: FakeController, status: str, asked: int = 3) -> None:
    """The only application gets `status` when the controller has been asked a few times."""
    left = iter(range(asked))

    def change(reply: control_pb2.StatusReply) -> None:
        if next(left, None) is None:
            reply.applications[0].status = status

    controller.on_status = change


@pytest.mark.parametrize("status", ["DEPLOYING", "UNHEALTHY", "NOT_STARTED"])
def test_a_rollout_is_waited_for_through_every_state_but_failure(status: str) -> None:
    """Unhealthy deployments are waited for too (item 66)."""
    controller = FakeController()
    controller.add("app", status)
    later(controller, "RUNNING")
    heard: list[str] = []
    rollout_wait.until_running(controller, "app", lambda application: heard.append(application.status))  # type: ignore[arg-type]
    assert heard == [status] * 3 + ["RUNNING"]


def test_a_failed_rollout_raises_the_deployment_s_message() -> None:
    """The reason is in the error (item 66)."""
    controller = FakeController()
    controller.add("app", "DEPLOY_FAILED", "Model: no such file")
    with pytest.raises(RuntimeError, match="Model: no such file"):
        rollout_wait.until_running(controller, "app")  # type: ignore[arg-type]


def test_an_application_deleted_meanwhile_raises() -> None:
    """Waiting ends when there is nothing to wait for (item 66)."""
    controller = FakeController()
    with pytest.raises(RuntimeError, match="was deleted while"):
        rollout_wait.until_running(controller, "app")  # type: ignore[arg-type]
    controller.add("app", "DELETING")
    with pytest.raises(RuntimeError, match="was deleted while"):
        rollout_wait.until_running(controller, "app")  # type: ignore[arg-type]


def test_a_slow_rollout_says_why_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    progress = rollout_wait.ProgressLogger(lambda: now_s)
    application = control_pb2.ApplicationStatus(name="app", status="DEPLOYING", message="no node has 8 CPUs")
    with caplog.at_level(logging.WARNING, "mesh"):
        for second in range(25):
            now_s = float(second)
            progress(application)
        now_s = 30.0
        for status in ("DEPLOY_FAILED", "RUNNING"):  # what came of it is not what it waits for
            progress(control_pb2.ApplicationStatus(name="app", status=status))
    assert [record.getMessage() for record in caplog.records] == [
        "application 'app' has been DEPLOYING for 10 s: no node has 8 CPUs",
        "application 'app' has been DEPLOYING for 20 s: no node has 8 CPUs",
    ]


def test_a_slow_start_of_gateways_says_which_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    progress = rollout_wait.GatewayProgressLogger(lambda: now_s)
    reply = control_pb2.StatusReply()
    with caplog.at_level(logging.WARNING, "mesh"):
        for second in range(25):
            now_s = float(second)
            progress(reply)
            if second == 10:
                reply.gateways.add(node_id="n1", status="HEALTHY")
                reply.gateways.add(node_id="n2", status="STARTING", message="OSError: no room\n  File")
        now_s = 40.0
        reply.gateways[1].status = "HEALTHY"
        progress(reply)
    assert [record.getMessage() for record in caplog.records] == [
        "still waiting for gateways after 10 s: none was started",
        "still waiting for gateways after 20 s: node n2: STARTING OSError: no room",
    ]


@pytest.mark.parametrize("wait", [rollout_wait.until_gateways_healthy, rollout_wait.until_gateways_changed])
def test_waits_for_gateways_say_what_they_wait_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait: Callable[[FakeController], None]
) -> None:
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(progress_interval_s=0.0))
    controller = FakeController()
    controller.reply.gateways.add(node_id="n1", status="STARTING")
    asked = iter(range(2))

    def start(reply: control_pb2.StatusReply) -> None:
        if next(asked, None) is None:
            reply.gateways[0].status = "HEALTHY"

    controller.on_status = start
    with caplog.at_level(logging.WARNING, "mesh"):
        wait(controller)
    assert [record.getMessage() for record in caplog.records] == [
        "still waiting for gateways after 0 s: node n1: STARTING"
    ] * 2


def test_gateways_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has node, status and message of each gateway (item 57)."""
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_timeout_s=0.0))
    controller = FakeController()
    with pytest.raises(TimeoutError, match="none was started"):
        rollout_wait.until_gateways_healthy(controller)  # type: ignore[arg-type]
    controller.reply.gateways.add(node_id="n1", status="HEALTHY")
    controller.reply.gateways.add(node_id="n2", status="STARTING", message="ImportError: no module")
    with pytest.raises(TimeoutError, match=r"node n2: STARTING ImportError: no module\)\. `mesh logs` shows"):
        rollout_wait.until_gateways_healthy(controller)  # type: ignore[arg-type]
    controller.reply.gateways[1].status = "HEALTHY"
    rollout_wait.until_gateways_healthy(controller)  # type: ignore[arg-type]


def test_a_gateway_whose_start_has_not_begun_is_waited_for() -> None:
    """The wait for new options, `processes` among them, ends when all gateways have them."""
    controller = FakeController()
    reply = controller.reply
    reply.gateways_revision, reply.gateways_wanted = 1, 2
    reply.gateways.add(node_id="n1", revision=0, status="DRAINING", message="its options have changed")
    reply.gateways.add(node_id="n1", revision=1, status="HEALTHY")
    heard: list[int] = []

    def go_on(reply: control_pb2.StatusReply) -> None:
        heard.append(len(reply.gateways))
        match len(heard):
            case 2:
                reply.gateways.add(node_id="n1", index=1, revision=1, status="STARTING")
            case 3:
                reply.gateways[2].status = "HEALTHY"

    controller.on_status = go_on
    rollout_wait.until_gateways_changed(controller)  # type: ignore[arg-type]
    assert heard == [2, 2, 3]


def test_gateways_that_keep_failing_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same failure for 10 s ends the wait (item 57)."""
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_failing_timeout_s=0.0))
    taken = "OSError: cannot listen on 0.0.0.0:9000: address already in use"
    controller = FakeController()
    controller.reply.gateways.add(node_id="n1", status="UNHEALTHY", message=f"{taken}\n  File")
    with pytest.raises(TimeoutError, match=rf"node n1: UNHEALTHY {taken}\)\. Choose another port or host: "):
        rollout_wait.until_gateways_healthy(controller)  # type: ignore[arg-type]


def test_a_gateway_that_crashes_again_and_again_fails_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although each time it is another process (item 57)."""
    limits = client_settings(gateways_failing_timeout_s=10.0, gateways_timeout_s=100.0)
    monkeypatch.setattr(rollout_wait, "settings", lambda: limits)
    now_s = 0.0
    wait = rollout_wait._GatewayWait(lambda: now_s)
    for pid in range(1000, 4000, 100):
        now_s += 1.0
        crashed = f"Its process exited, crashed or was killed (pid {pid} on 192.0.2.2)."
        failing = control_pb2.GatewayStatus(node_id="n1", status="STARTING", message=crashed)
        if wait.is_over(control_pb2.StatusReply(gateways=[failing])):
            break
    assert now_s == 11.0


def test_a_correction_does_not_fail_for_what_it_corrects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of gateways with the former options are not its own (items 52, 57)."""
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_failing_timeout_s=0.0))
    controller = FakeController()
    reply = controller.reply
    reply.gateways_revision = 1
    reply.gateways.add(node_id="n1", revision=0, status="STARTING", message="OSError: cannot listen on 0.0.0.0:9000")
    heard: list[int] = []

    def go_on(reply: control_pb2.StatusReply) -> None:
        heard.append(len(heard))
        if len(heard) == 3:
            reply.gateways[0].CopyFrom(control_pb2.GatewayStatus(node_id="n1", revision=1, status="HEALTHY"))

    controller.on_status = go_on
    rollout_wait.until_gateways_changed(controller)  # type: ignore[arg-type]
    assert len(heard) == 3


def test_new_options_that_fail_where_no_gateway_serves_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be said that the former ones serve on (item 57)."""
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(gateways_failing_timeout_s=0.0))
    controller = FakeController()
    controller.reply.gateways_revision = 1
    controller.reply.gateways.add(node_id="n1", revision=1, status="UNHEALTHY", message="no file /tls.pem")
    with pytest.raises(TimeoutError, match=r"no file /tls.pem\)\. None serves\. Correct the options"):
        rollout_wait.until_gateways_changed(controller)  # type: ignore[arg-type]
    controller.reply.gateways.add(node_id="n1", revision=0, status="HEALTHY")
    with pytest.raises(TimeoutError, match="former ones serve on"):
        rollout_wait.until_gateways_changed(controller)  # type: ignore[arg-type]


def test_a_deletion_is_over_when_the_application_was_deployed_again() -> None:
    controller = FakeController()
    controller.add("app", "DELETING")
    later(controller, "DEPLOYING")
    rollout_wait.until_deleted(controller, "app")  # type: ignore[arg-type]
    assert controller.reply.applications[0].status == "DEPLOYING"


def test_a_deletion_that_takes_too_long_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deletion goes on (item 76)."""
    monkeypatch.setattr(rollout_wait, "settings", lambda: client_settings(delete_timeout_s=0.0))
    controller = FakeController()
    rollout_wait.until_deleted(controller, "app")  # type: ignore[arg-type]
    controller.add("app", "DELETING")
    with pytest.raises(TimeoutError, match="'app' was not gone"):
        rollout_wait.until_deleted(controller, "app")  # type: ignore[arg-type]
