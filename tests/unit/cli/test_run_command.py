"""mesh.cli.run_command: `mesh run` against a fake cluster, from the first line to the clean-up."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mesh.cli import main, run_command
from mesh.client import port_check
from mesh.exceptions import ControllerUnavailableError, MeshException
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController

SHOP = """
import mesh

@mesh.deployment
class Front:
    def __init__(self, *callees): ...

app = Front.bind(Front.options(name="Stock").bind())
unbound = Front
"""


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


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, arguments)


def interrupting(look: Callable[[], None]) -> Callable[[], None]:
    """Stands for the wait for Ctrl-C, which comes at once."""

    def pause() -> None:
        look()
        raise KeyboardInterrupt

    return pause


def test_a_taken_port_is_found_before_ray_is_started(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.is_there = False
    monkeypatch.setattr(port_check, "_WAIT_S", 0.0)
    monkeypatch.setattr(port_check, "_is_free", lambda host, port: port != 9123)
    result = invoke("run", "shop_for_cli:app", "--grpc-port", "9123")
    assert result.exit_code == 1
    assert result.output.startswith("Error: Port 9123 of 0.0.0.0 is taken by another process. Choose another one")
    assert not cluster.is_there


def test_run_serves_until_interrupted_and_leaves_nothing(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.extend(each.name for each in cluster.controller.deployed[0].deployments)
        assert cluster.controller.reply.gateway_options.grpc_port == 9100

    monkeypatch.setattr(run_command, "_pause", interrupting(look))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--grpc-port", "9100", "--name", "shop")
    assert result.exit_code == 0, result.output
    assert seen == ["Stock", "Front"]
    assert "gRPC on h:9000" in result.output
    assert result.output.splitlines()[-3:] == ["Running; Ctrl-C ends it.", "", "Stopping ..."]
    assert (cluster.actors, cluster.kv) == ({}, {})


@pytest.mark.parametrize(
    ("is_there", "message"),
    [
        (True, "Interrupted. `mesh status` shows what is left, `mesh shutdown` stops it."),
        (
            False,
            "Interrupted. Ray, which this command started, ends with it, and so does everything that runs on it.",
        ),
    ],
)
def test_a_second_ctrl_c_interrupts_the_clean_up(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, message: str
) -> None:
    cluster.is_there = is_there

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "_pause", interrupt)
    monkeypatch.setattr(run_command.api, "shutdown", interrupt)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == message


def test_kill_ends_a_run_as_ctrl_c_does(cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own handler, which prints a stack trace, does not stay in the way."""
    monkeypatch.setattr(
        "mesh.cluster.ray_core.attach_ray",
        lambda address=None: bool(signal.signal(signal.SIGTERM, lambda *_: None)) or True,
    )
    monkeypatch.setattr(run_command, "_pause", lambda: signal.raise_signal(signal.SIGTERM))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Stopping ...")
    assert not cluster.actors


def test_run_on_a_running_mesh_deletes_only_its_application(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    controller.add("other", "RUNNING")
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: None))
    assert invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--name", "shop").exit_code == 0
    assert [each.name for each in controller.reply.applications] == ["other"]
    assert "MESH_CONTROLLER" in cluster.actors


def test_run_does_not_replace_an_application_that_something_else_deployed(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with the way out, and nothing is deleted (item 243)."""
    controller = cluster.run_controller()
    controller.add("default", "RUNNING")
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, "add --replace" in result.output) == (1, True)
    assert "Stopping" not in result.output
    assert [each.name for each in controller.reply.applications] == ["default"]
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: None))
    assert invoke("run", "shop_for_cli:app", "--app-dir", str(shop), "--replace").exit_code == 0
    assert not controller.reply.applications


def test_what_another_client_has_deployed_again_stays(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends, and its clean-up does not touch the application (item 243)."""
    controller = cluster.run_controller()
    monkeypatch.setattr(run_command, "_pause", lambda: controller.add("default", "RUNNING"))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, "replaced by another client" in result.output) == (0, True)
    assert [each.name for each in controller.reply.applications] == ["default"]


def test_a_mesh_that_others_use_is_left_to_them(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: cluster.controller.add("other", "RUNNING")))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.output.splitlines()[-1] == "The mesh keeps running for other."
    assert [each.name for each in cluster.controller.reply.applications] == ["other"]
    assert "MESH_CONTROLLER" in cluster.actors


def test_others_on_a_ray_that_the_run_started_end_with_it(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.is_there = False
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: cluster.controller.add("other", "RUNNING")))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.output.splitlines()[-1] == "This also ends other, because this command started Ray."
    assert not cluster.actors


def test_a_run_that_started_ray_serves_on_what_another_client_deployed_again(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end would be that of the application; Ctrl-C still ends both (item 243)."""
    cluster.is_there = False
    looks = iter((lambda: cluster.controller.add("default", "RUNNING"), lambda: None))

    def pause() -> None:
        look = next(looks, None)
        if look is None:
            raise KeyboardInterrupt
        look()

    monkeypatch.setattr(run_command, "_pause", pause)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert next(looks, None) is None
    replaced = "Deleted or replaced by another client: default."
    assert result.output.count(f"{replaced} Ray, which this command started, runs on for default until Ctrl-C.") == 1
    assert result.output.splitlines()[-1] == "This also ends default, because this command started Ray."


def test_an_own_application_that_is_being_deleted_keeps_no_mesh(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete() -> None:
        (application,) = cluster.controller.reply.applications
        application.status = "DELETING"

    monkeypatch.setattr(run_command, "_pause", delete)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Stopping ...")
    assert not cluster.actors


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_run_ends_when_its_application_is_deleted(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    if not is_ours:
        cluster.run_controller()
    monkeypatch.setattr(run_command, "_pause", lambda: cluster.controller.delete("default"))
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 0
    assert "Deleted or replaced by another client: default." in result.output
    assert bool(cluster.actors) is not is_ours


def test_a_run_ends_when_the_mesh_is_shut_down(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    steps = iter(
        (lambda: setattr(controller.reply, "is_shutting_down", True), controller.shutdown, cluster.actors.clear)
    )
    monkeypatch.setattr(run_command, "_pause", lambda: next(steps)())
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert next(steps, None) is None
    assert result.exit_code == 0
    assert "The mesh was shut down, and default with it: by another client" in result.output
    assert "Stopping" not in result.output


def test_a_run_that_was_refused_on_a_mesh_that_it_started_stops_that(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MeshException("Route prefix '/' belongs to application 'other'.")

    monkeypatch.setattr(FakeController, "apply", refuse)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert result.exit_code == 1
    assert "Stopping ...\nError: Route prefix '/' belongs to application 'other'.\n" in result.output
    assert not cluster.actors


def test_a_run_whose_deploy_was_not_answered_deletes_what_may_be_stored(
    cluster: FakeCluster, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    store = controller.apply

    def store_without_answer(*arguments: Any, **options: Any) -> None:
        store(*arguments, **options)
        raise ControllerUnavailableError.after(30, "it restarts")

    monkeypatch.setattr(controller, "apply", store_without_answer)
    result = invoke("run", "shop_for_cli:app", "--app-dir", str(shop))
    assert (result.exit_code, "Stopping ..." in result.output) == (1, True)
    assert not controller.reply.applications


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
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: seen.append(cluster.controller.target_capacity)))
    assert invoke("run", *half).exit_code == 0
    assert seen == [50.0]


def test_run_does_not_change_the_target_capacity_of_others(
    cluster: FakeCluster, half: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    result = invoke("run", *half)
    assert (result.exit_code, "Stopping" in result.output) == (1, False)
    assert "target_capacity is 50 in the file and not set in the running mesh." in result.output
    assert (controller.deployed, controller.target_capacity) == ([], None)
    controller.reply.target_capacity = 50.0
    monkeypatch.setattr(run_command, "_pause", interrupting(lambda: None))
    assert invoke("run", *half).exit_code == 0
    assert len(controller.deployed) == 1


def test_a_file_without_applications_cannot_be_run(cluster: FakeCluster, shop: Path) -> None:
    file = shop / "mesh.yaml"
    file.write_text("applications: []")
    result = invoke("run", str(file))
    assert (result.exit_code, "has no application: there is nothing to run" in result.output) == (1, True)
    assert not cluster.actors
