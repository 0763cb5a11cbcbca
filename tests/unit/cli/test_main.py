"""mesh.cli.main: the `mesh` command against a fake cluster; every failure is a message and a status, no traceback."""

import errno
import json
import signal

import click
import pytest
from click.testing import CliRunner, Result

from mesh.cli import main
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeActor, FakeCluster


def invoke(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main.main, arguments, input=answer)


def test_status_is_text_or_json(cluster: FakeCluster) -> None:
    cluster.run_controller().add("shop", "RUNNING")
    assert "shop                RUNNING" in invoke("status").output
    assert json.loads(invoke("status", "--json").output)["applications"][0]["name"] == "shop"


def test_all_replicas_are_listed_only_when_they_are_asked_for(cluster: FakeCluster) -> None:
    """Programs get all of them in any case (item 251)."""
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", deployments=["Front"])
    deployment = controller.reply.applications[0].deployments[0]
    for number in range(100):
        deployment.replicas.add(replica_id=f"r{number}", state="RUNNING")
    deployment.deaths.add(replica_id="gone", reason="killed")
    few, full = (invoke("status", *flags).output for flags in ((), ("--replicas",)))
    assert ("r7 " in few, "r8 " in few, "and 92 more" in few, "gone" in few) == (True, False, True, False)
    assert ("r99 " in full, "more" in full, "gone" in full) == (True, False, True)
    plain, asked = (json.loads(invoke("status", "--json", *flags).output) for flags in ((), ("--replicas",)))
    (shown,) = plain["applications"][0]["deployments"]
    assert (len(shown["replicas"]), shown["deaths"][0]["replica_id"], plain) == (100, "gone", asked)


def test_status_of_one_application(cluster: FakeCluster) -> None:
    """`--name` shows one application; an unknown one is refused with those there are (item 244)."""
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING")
    controller.add("other", "RUNNING")
    assert "shop" not in invoke("status", "--name", "other").output
    assert "There is no application 'none'. There are: shop, other." in invoke("status", "--name", "none").output
    assert invoke("status", "other").output == invoke("status", "--name", "other").output
    assert "name one application" in invoke("status", "shop", "--name", "other").output


def test_status_of_one_application_has_the_tracebacks(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.add("shop", "DEPLOY_FAILED", deployments=["Front", "Stock"])
    controller.reply.applications[0].deployments[0].message = 'ValueError: bad\n  File "shop.py", line 3'
    shown = invoke("status", "--name", "shop").output
    assert shown.endswith('\n\nshop/Front: ValueError: bad\n  File "shop.py", line 3\n')
    assert "shop.py" not in invoke("status").output


@pytest.mark.parametrize(
    ("application", "gateway", "exit_code"),
    [
        ("RUNNING", "HEALTHY", 0),
        ("DEPLOYING", "HEALTHY", 0),
        ("DEPLOY_FAILED", "HEALTHY", 1),
        ("UNHEALTHY", "HEALTHY", 1),
        ("RUNNING", "UNHEALTHY", 1),
    ],
)
def test_scripts_learn_from_the_exit_status_what_has_failed(
    cluster: FakeCluster, application: str, gateway: str, exit_code: int
) -> None:
    """The text is the same (item 244)."""
    controller = cluster.run_controller()
    controller.add("shop", application)
    controller.reply.gateways[0].status = gateway
    shown = invoke("status")
    assert (shown.exit_code, application in shown.output) == (exit_code, True)
    assert invoke("status", "--json").exit_code == exit_code


def test_status_waits_until_everything_runs(cluster: FakeCluster) -> None:
    """An unhealthy application may recover, so it is waited for (item 244)."""
    controller = cluster.run_controller()
    controller.add("shop", "DEPLOYING")
    coming = iter(["DEPLOYING", "UNHEALTHY", "DEPLOYING", "RUNNING"])

    def go_on(reply: control_pb2.StatusReply) -> None:
        reply.applications[0].status = next(coming, "RUNNING")

    controller.on_status = go_on
    shown = invoke("status", "--wait")
    assert (shown.exit_code, "RUNNING" in shown.output) == (0, True)


def test_status_does_not_wait_for_what_has_failed(cluster: FakeCluster) -> None:
    cluster.run_controller().add("shop", "DEPLOY_FAILED")
    shown = invoke("status", "--wait", "--name", "shop")
    assert (shown.exit_code, "DEPLOY_FAILED" in shown.output) == (1, True)


def test_the_wait_of_status_ends(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING")
    controller.add("other", "DEPLOYING")
    shown = invoke("status", "--wait", "0")
    assert (shown.exit_code, shown.output.splitlines()[-1]) == (1, "Not everything runs after 0 s.")
    assert invoke("status", "--wait", "0", "--name", "shop").exit_code == 0


@pytest.mark.parametrize("command", [("status",), ("delete", "shop"), ("shutdown", "-y")])
def test_commands_say_when_there_is_nothing_to_talk_to(cluster: FakeCluster, command: tuple[str, ...]) -> None:
    without_mesh = invoke(*command)
    assert without_mesh.exit_code == 1
    assert "There is no mesh instance running" in without_mesh.output
    cluster.is_there = False
    without_ray = invoke(*command)
    assert without_ray.exit_code == 1
    assert "No Ray cluster is running here" in without_ray.output


def test_delete_removes_one_application(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING")
    controller.add("other", "RUNNING")
    assert invoke("delete", "shop").output == "Deleted shop.\n"
    assert [each.name for each in controller.reply.applications] == ["other"]


def test_delete_names_what_there_is_instead(cluster: FakeCluster) -> None:
    cluster.run_controller().add("shop", "RUNNING")
    result = invoke("delete", "shpo")
    assert result.exit_code == 1
    assert "There is no application 'shpo'. There are: shop. Did you mean 'shop'?" in result.output


def test_shutdown_asks_first(cluster: FakeCluster) -> None:
    cluster.run_controller().add("shop", "RUNNING")
    assert invoke("shutdown", answer="n\n").exit_code == 1
    assert cluster.actors
    asked = invoke("shutdown", answer="y\n")
    assert "This deletes shop and the gateways" in asked.output
    assert not cluster.actors


def test_shutdown_with_yes_does_not_ask(cluster: FakeCluster) -> None:
    cluster.run_controller()
    assert invoke("shutdown", "-y").output == "The mesh is shut down.\n"
    assert not cluster.actors


def test_shutdown_removes_what_is_left_of_a_mesh_without_a_controller(cluster: FakeCluster) -> None:
    """A shutdown that was interrupted says that another one does so (item 60)."""
    cluster.kv["token"] = b"old"
    cluster.actors["MESH_REPLICA::1"] = FakeActor()
    assert invoke("shutdown", answer="n\n").exit_code == 1
    assert cluster.actors
    assert invoke("shutdown", "-y").output == "The mesh is shut down.\n"
    assert (cluster.actors, cluster.kv) == ({}, {})


def test_start_chooses_ports_beforehand(cluster: FakeCluster) -> None:
    """`mesh start` takes the options of the gateways (item 241)."""
    result = invoke("start", "--grpc-port", "9100", "--http-host", "0.0.0.0", "--proxy-location", "HeadOnly")
    assert result.output == "gRPC on h:9000\n"
    options = cluster.controller.reply.gateway_options
    assert (options.grpc_port, options.http_host, options.http_port) == (9100, "0.0.0.0", 8000)


@pytest.mark.parametrize(
    ("flags", "is_on"), [((), True), (("--grpc-enable-reflection",), True), (("--grpc-disable-reflection",), False)]
)
def test_start_turns_reflection_off_if_it_is_asked_to(
    cluster: FakeCluster, flags: tuple[str, ...], is_on: bool
) -> None:
    """It is on by default (items 222, 241)."""
    assert invoke("start", *flags).exit_code == 0
    assert cluster.controller.reply.gateway_options.has_reflection is is_on


def test_start_may_do_without_a_port_or_take_any(cluster: FakeCluster) -> None:
    """None and 0 of the Python API (C15)."""
    assert invoke("start", "--grpc-port", "0", "--http-port", "none").exit_code == 0
    options = cluster.controller.reply.gateway_options
    assert (options.HasField("grpc_port"), options.grpc_port, options.HasField("http_port")) == (True, 0, False)
    assert "is not in the range 0<=x<=65535" in invoke("start", "--grpc-port", "65536").output
    assert "'off' is not a valid port" in invoke("start", "--grpc-port", "off").output
    cluster.is_there = False
    assert "Start one with `ray start --head`" in invoke("start").output


def test_a_reader_that_stops_reading_is_no_error(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mesh status | head -1`"""
    cluster.run_controller()

    def break_off(*args: object, **options: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("mesh.cli.main.click.echo", break_off)
    result = invoke("status")
    assert (result.exit_code, result.output) == (1, "")


def test_an_interrupted_command_ends_like_one(cluster: FakeCluster) -> None:
    def interrupt(reply: object) -> None:
        raise KeyboardInterrupt

    cluster.run_controller().on_status = interrupt
    result = invoke("status")
    assert result.exit_code == 130
    assert "Interrupted." in result.output


@pytest.mark.parametrize(
    ("command", "waits", "text"),
    [
        (("scale", "shop", "Front", "2"), "until_all_running", "It goes on; see `mesh status`."),
        (("rollback", "shop"), "until_all_running", "It continues; see `mesh status`."),
        (("promote", "shop"), "until_all_running", "It continues; see `mesh status`."),
        (("delete", "shop"), "until_deleted", "The deletion continues; see `mesh status`."),
    ],
)
def test_ctrl_c_says_that_what_was_waited_for_goes_on(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], waits: str, text: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    controller = cluster.run_controller()
    controller.add("shop", "RUNNING", "", "Front", ["Front"])
    controller.history_reply.rollback_unix_time_s = 1.0
    monkeypatch.setattr(rollout_wait, waits, interrupt)
    result = invoke(*command)
    assert (result.exit_code, result.output.splitlines()[-1]) == (130, text)


def test_ctrl_c_in_a_shutdown_says_how_it_is_finished(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    cluster.run_controller()
    monkeypatch.setattr(mesh_lifecycle, "destroy", interrupt)
    result = invoke("shutdown", "--yes")
    assert result.exit_code == 130
    assert result.output.splitlines()[-1].endswith("`mesh shutdown` again removes what is left then.")


def test_when_all_is_done_ctrl_c_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mesh", "--version"])
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            main.command()
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert caught.value.code == 0


def test_every_command_and_option_is_explained() -> None:
    for name, command in main.main.commands.items():
        assert command.help, name
        for parameter in command.params:
            is_explained = isinstance(parameter, click.Argument) or getattr(parameter, "help", None)
            assert is_explained, f"mesh {name}: {parameter.name}"


def test_every_command_has_the_short_options_of_ray_serve() -> None:
    """For `--address` and `--app-dir`, wherever they are (items 241–244)."""
    named = {
        (option.name, *sorted(option.opts))
        for command in main.main.commands.values()
        for option in command.params
        if option.name in ("address", "app_dir")
    }
    assert named == {("address", "--address", "-a"), ("app_dir", "--app-dir", "-d")}
