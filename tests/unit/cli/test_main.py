"""mesh.cli.main: the `mesh` command against a fake cluster; every failure is a message and a status, no traceback."""

import errno
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mesh.cli import main
from tests.unit.fakes.mesh_fakes import FakeCluster

SHOP = """
import mesh

@mesh.deployment
class Front:
    def __init__(self, *callees): ...

app = Front.bind(Front.options(name="Stock").bind())
unbound = Front
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the application shop_for_cli:app."""
    (tmp_path / "shop_for_cli.py").write_text(SHOP)
    (tmp_path / "broken_for_cli.py").write_text("raise KeyError('sugar')")
    monkeypatch.syspath_prepend(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def invoke(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main.main, arguments, input=answer)


def interrupting(look: Callable[[], None]) -> Callable[[], None]:
    """Stands for the wait for Ctrl-C, which comes at once."""

    def pause() -> None:
        look()
        raise KeyboardInterrupt

    return pause


def test_run_serves_until_interrupted_and_leaves_nothing(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.extend(each.name for each in cluster.controller.deployed[0].deployments)
        assert cluster.controller.reply.gateway_options.grpc_port == 9100

    monkeypatch.setattr(main, "_pause", interrupting(look))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--grpc-port", "9100", "--name", "shop")
    assert result.exit_code == 0, result.output
    assert seen == ["Stock", "Front"]
    assert "gRPC on h:9000" in result.output
    assert result.output.splitlines()[-3:] == ["Running; Ctrl-C ends it.", "", "Stopping ..."]
    assert (cluster.actors, cluster.kv) == ({}, {})


def test_a_second_ctrl_c_interrupts_the_clean_up(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_pause", interrupt)
    monkeypatch.setattr(main.api, "shutdown", interrupt)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == (
        "Interrupted. `mesh status` shows what is left, `mesh shutdown` stops it."
    )


def test_kill_ends_a_run_as_ctrl_c_does(cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own handler, which prints a stack trace, does not stay in the way."""
    monkeypatch.setattr(
        "mesh.cluster.ray_core.attach_ray",
        lambda address=None: bool(signal.signal(signal.SIGTERM, lambda *_: None)) or True,
    )
    monkeypatch.setattr(main, "_pause", lambda: signal.raise_signal(signal.SIGTERM))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Stopping ...")
    assert not cluster.actors


def test_run_on_a_running_mesh_deletes_only_its_application(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    controller.add("other", "RUNNING")
    monkeypatch.setattr(main, "_pause", interrupting(lambda: None))
    assert invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--name", "shop").exit_code == 0
    assert [each.name for each in controller.reply.applications] == ["other"]
    assert "MESH_CONTROLLER" in cluster.actors


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_run_ends_when_its_application_is_deleted(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    if not is_ours:
        cluster.run_controller()
    monkeypatch.setattr(main, "_pause", lambda: cluster.controller.delete("default"))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 0
    assert "Deleted by another client: default." in result.output
    assert bool(cluster.actors) is not is_ours


def test_a_run_ends_when_the_mesh_is_shut_down(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    steps = iter(
        (lambda: setattr(controller.reply, "is_shutting_down", True), controller.shutdown, cluster.actors.clear)
    )
    monkeypatch.setattr(main, "_pause", lambda: next(steps)())
    assert invoke("run", "shop_for_cli:app", "--app-dir", str(shop)).exit_code == 0
    assert next(steps, None) is None


def test_a_failed_run_says_why_and_cleans_up(cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = cluster.run_controller()
    controller.deploy_result = ("DEPLOY_FAILED", "Front: no such file")
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 1
    assert "Error: Deploying application 'default' failed: Front: no such file" in result.output
    assert not controller.reply.applications


def test_a_run_that_was_never_deployed_deletes_nothing(cluster: FakeCluster, shop: Path) -> None:
    controller = cluster.run_controller()
    controller.add("default", "RUNNING")
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--route-prefix", "bad")
    assert result.exit_code == 1
    assert "route_prefix must start with '/'" in result.output
    assert [each.name for each in controller.reply.applications] == ["default"]


@pytest.mark.parametrize(
    ("import_path", "words"),
    [
        ("shop_for_cli", "is not MODULE:APP"),
        (":app", "is not MODULE:APP"),
        ("no_such_module:app", "There is no module 'no_such_module' in "),
        ("shop_for_cli:nothing", "has no 'nothing'. Applications in it: app."),
        (
            "shop_for_cli:unbound",
            "is a Deployment, not an application: name the result of .bind(...), or a function that returns one. "
            "Applications in it: app.",
        ),
    ],
)
def test_what_cannot_be_run_is_one_line(cluster: FakeCluster, shop: Path, import_path: str, words: str) -> None:
    result = invoke("run", import_path, "--app-dir", str(shop))
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert words in line
    assert not cluster.actors


def test_an_import_that_fails_shows_the_lines_of_user_code(cluster: FakeCluster, shop: Path) -> None:
    """The traceback has no line of the mesh (item 250)."""
    lines = invoke("run", "broken_for_cli:app", "--app-dir", str(shop)).output.splitlines()
    assert lines == [
        "Error: Importing 'broken_for_cli' failed: KeyError: 'sugar'",
        f'  File "{shop}/broken_for_cli.py", line 1, in <module>',
        "    raise KeyError('sugar')",
    ]
    assert not cluster.actors


def test_verbose_shows_the_traceback(cluster: FakeCluster, shop: Path) -> None:
    result = invoke("-v", "run", "broken_for_cli:app", "--app-dir", str(shop))
    assert isinstance(result.exception, ImportError)


def test_status_is_text_or_json(cluster: FakeCluster) -> None:
    cluster.run_controller().add("shop", "RUNNING")
    assert "shop                RUNNING" in invoke("status").output
    assert json.loads(invoke("status", "--json").output)["applications"][0]["name"] == "shop"


def test_status_of_one_application(cluster: FakeCluster) -> None:
    """`--name` shows one application; an unknown one is refused with those there are (item 244)."""
    controller = cluster.run_controller()
    controller.add("shop", "RUNNING")
    controller.add("other", "RUNNING")
    assert "shop" not in invoke("status", "--name", "other").output
    assert "There is no application 'none'. There are: shop, other." in invoke("status", "--name", "none").output


def test_status_of_one_application_has_the_tracebacks(cluster: FakeCluster) -> None:
    controller = cluster.run_controller()
    controller.add("shop", "DEPLOY_FAILED", deployments=["Front", "Stock"])
    controller.reply.applications[0].deployments[0].message = 'ValueError: bad\n  File "shop.py", line 3'
    shown = invoke("status", "--name", "shop").output
    assert shown.endswith('\n\nshop/Front: ValueError: bad\n  File "shop.py", line 3\n')
    assert "shop.py" not in invoke("status").output


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


def test_start_chooses_ports_beforehand(cluster: FakeCluster) -> None:
    """`mesh start` takes the options of the gateways (item 241)."""
    result = invoke("start", "--grpc-port", "9100", "--http-host", "0.0.0.0", "--proxy-location", "HeadOnly")
    assert result.output == "gRPC on h:9000\n"
    options = cluster.controller.reply.gateway_options
    assert (options.grpc_port, options.http_host, options.http_port) == (9100, "0.0.0.0", 8000)
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


@pytest.fixture
def half(shop: Path) -> tuple[str, ...]:
    """Arguments of `mesh run`, for a file that asks for half of the replicas."""
    file = shop / "mesh.yaml"
    file.write_text("target_capacity: 50\napplications: [{import_path: 'shop_for_cli:app'}]\n")
    return str(file), "--app-dir", str(shop)


def test_run_of_a_file_keeps_to_its_target_capacity(
    cluster: FakeCluster, half: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mesh run` applies `target_capacity` to a mesh that it starts (items 232, 247)."""
    seen: list[float | None] = []
    monkeypatch.setattr(main, "_pause", interrupting(lambda: seen.append(cluster.controller.target_capacity)))
    assert invoke("run", *half).exit_code == 0
    assert seen == [50.0]


def test_run_does_not_change_the_target_capacity_of_others(
    cluster: FakeCluster, half: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    result = invoke("run", *half)
    assert result.exit_code == 1
    assert "target_capacity is 50 in the file and not set in the running mesh." in result.output
    assert (controller.deployed, controller.target_capacity) == ([], None)
    controller.reply.target_capacity = 50.0
    monkeypatch.setattr(main, "_pause", interrupting(lambda: None))
    assert invoke("run", *half).exit_code == 0
    assert len(controller.deployed) == 1


def test_a_file_without_applications_cannot_be_run(cluster: FakeCluster, shop: Path) -> None:
    file = shop / "mesh.yaml"
    file.write_text("applications: []")
    result = invoke("run", str(file))
    assert (result.exit_code, "has no application: there is nothing to run" in result.output) == (1, True)
    assert not cluster.actors


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
