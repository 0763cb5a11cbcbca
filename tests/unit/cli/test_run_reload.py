"""mesh.cli.run_command: `mesh run --reload` and `--working-dir` against a fake cluster (item 243)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mesh.cli import main, run_command
from mesh.v1 import control_pb2
from tests.unit.cli.test_run_command import shop
from tests.unit.fakes.mesh_fakes import FakeCluster

__all__ = ["shop"]

APP = """
import mesh
from price_for_reload import PRICE

@mesh.deployment
class Stock: ...

@mesh.deployment(user_config={"price": PRICE})
class Front:
    def __init__(self, *callees): ...
    def reconfigure(self, config): ...

app = Front.bind(Stock.bind())
"""


@pytest.fixture
def code(shop: Path) -> Path:
    """A directory with the application reload_me:app, of two modules."""
    (shop / "reload_me.py").write_text(APP)
    (shop / "price_for_reload.py").write_text("PRICE = 1")
    return shop


class Story:
    """What happens while `mesh run` waits: a step for each look at the files that finds nothing new, then Ctrl-C."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
        self._steps = iter(steps)
        self._looks = 0
        monkeypatch.setattr(run_command, "_pause", self._pause)

    def _pause(self) -> None:
        self._looks += 1
        if self._looks % 3:
            return
        step = next(self._steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, ["run", *arguments])


def prices(cluster: FakeCluster) -> list[int]:
    """Of each deploy."""
    return [json.loads(each.deployments[1].options.user_config_json)["price"] for each in cluster.controller.deployed]


def test_changed_code_is_imported_and_deployed_again(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds also for a module that the application's module imports, without a wait for `min_ready_s`."""
    Story(monkeypatch, lambda: (code / "price_for_reload.py").write_text("PRICE = 2"))
    result = run("reload_me:app", "--app-dir", str(code), "--reload")
    assert (result.exit_code, prices(cluster)) == (0, [1, 2]), result.output
    assert "Changed: price_for_reload.py." in result.output
    options = [each.options for spec in cluster.controller.deployed for each in spec.deployments]
    assert {each.HasField("min_ready_s") and each.min_ready_s for each in options} == {0.0}
    assert not cluster.controller.reply.applications


def test_code_that_cannot_be_imported_changes_nothing(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names file and line, and the next change is tried."""
    file = code / "price_for_reload.py"
    running: list[list[str]] = []

    def spoil() -> None:
        file.write_text("PRICE = (2")

    def mend() -> None:
        running.append([each.name for each in cluster.controller.reply.applications])
        file.write_text("PRICE = 3")

    Story(monkeypatch, spoil, mend)
    result = run("reload_me:app", "--app-dir", str(code), "--reload")
    assert (running, prices(cluster)) == ([["default"]], [1, 3]), result.output
    assert f'File "{file}", line 1' in result.output
    assert (
        "SyntaxError: '(' was never closed\nWhat was running goes on; the next change is tried again." in result.output
    )


def test_code_that_ends_the_process_that_imports_it_changes_nothing(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Story(monkeypatch, lambda: (code / "price_for_reload.py").write_text("import os; os._exit(3)"))
    result = run("reload_me:app", "--app-dir", str(code), "--reload")
    assert "The process that imports the application has ended with 3." in result.output
    assert prices(cluster) == [1]


def test_a_first_deploy_that_fails_is_mended_by_the_next_change(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = cluster.run_controller()
    controller.deploy_result = ("DEPLOY_FAILED", "Front: no such file")

    def mend() -> None:
        controller.deploy_result = ("RUNNING", "")
        (code / "price_for_reload.py").write_text("PRICE = 2")

    Story(monkeypatch, mend)
    result = run("reload_me:app", "--app-dir", str(code), "--reload")
    assert (result.exit_code, prices(cluster)) == (0, [1, 2]), result.output
    assert "Front: no such file\nThe next change is tried again; Ctrl-C ends this." in result.output


def test_a_change_during_a_deploy_ends_the_wait_for_it(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that never starts holds up no newer one."""
    controller = cluster.run_controller()
    controller.deploy_result = ("DEPLOYING", "Front waits for nothing")
    monkeypatch.setattr(run_command, "_POLL_S", 0.0)

    def mend(reply: control_pb2.StatusReply) -> None:
        if controller.deploy_result[0] == "DEPLOYING" and len(controller.deployed) == 2:
            controller.deploy_result = ("RUNNING", "")
            (code / "price_for_reload.py").write_text("PRICE = 3")

    def spoil() -> None:
        controller.deploy_result = ("DEPLOYING", "")
        controller.on_status = mend
        (code / "price_for_reload.py").write_text("PRICE = 2")

    controller.deploy_result = ("RUNNING", "")
    Story(monkeypatch, spoil, lambda: None)
    result = run("reload_me:app", "--app-dir", str(code), "--reload")
    assert (result.exit_code, prices(cluster)) == (0, [1, 2, 3]), result.output


def test_a_file_adds_and_removes_applications(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = code / "mesh.yaml"
    entry = "{{name: {0}, route_prefix: /{0}, import_path: 'reload_me:app'}}"
    running: list[list[str]] = []

    def write(*names: str) -> None:
        running.append(sorted(each.name for each in cluster.controller.reply.applications))
        file.write_text(f"applications: [{', '.join(entry.format(name) for name in names)}]")

    write("one", "two")
    cluster.run_controller()
    Story(monkeypatch, lambda: write("two", "three"), lambda: write("three"))
    result = run(str(file), "--app-dir", str(code), "--reload")
    assert result.exit_code == 0, result.output
    assert running == [[], ["one", "two"], ["three", "two"]]
    assert "Deleting one, which is no longer in the file." in result.output
    assert not cluster.controller.reply.applications


def test_a_working_directory_is_that_of_the_job(
    cluster: FakeCluster, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments inherit it, and the application is imported from it."""
    Story(monkeypatch)
    result = run("reload_me:app", "--working-dir", str(code))
    assert result.exit_code == 0, result.output
    assert cluster.job_runtime_env == {"working_dir": str(code)}
    (spec,) = cluster.controller.deployed
    assert all(str(code) in str(each.options) for each in spec.deployments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--working-dir", "/no/such"], "--working-dir: there is no directory /no/such."),
        (["--working-dir", ".", "--reload"], "choose one"),
    ],
)
def test_wrong_working_directories_are_refused(
    cluster: FakeCluster, code: Path, arguments: list[str], words: str
) -> None:
    result = run("reload_me:app", "--app-dir", str(code), *arguments)
    assert (result.exit_code, words in result.output, cluster.actors) == (1, True, {}), result.output
