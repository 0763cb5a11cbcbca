"""Mistakes on the command line, each with the message that says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mesh.cli import main
from tests.unit.fakes.mesh_fakes import FakeCluster


@pytest.fixture
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("")
    (tmp_path / "shop" / "mesh.yaml").write_text("applications: []\n")
    (tmp_path / "bound_shop.py").write_text("import mesh\n@mesh.deployment\nclass Shop: ...\napp = Shop.bind()\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "locked_shop.py").write_text(
        "import mesh, threading\n@mesh.deployment\nclass Shop:\n    def __init__(self, *parts): ...\n"
        "app = Shop.bind(Shop.bind(threading.Lock()))\n"
    )
    (tmp_path / "locked.yaml").write_text("applications:\n- import_path: locked_shop:app\n")
    (tmp_path / "latin1.yaml").write_bytes("applications: # größer\n".encode("latin-1"))
    (tmp_path / "tab.yaml").write_text("applications:\n\t- import_path: a:b\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("deploy", "shop/app.py"),
            "shop/app.py is code: name the application in it, for instance shop.app:app.",
        ),
        (
            ("run", "app.py", "--app-dir", "shop"),
            "app.py is code: name the application in it, for instance --app-dir . app:app.",
        ),
        (
            ("run", "bound_shop:app", "size=1"),
            "bound_shop:app is a bound application and takes no arguments, got size.",
        ),
        (("deploy", "latin1.yaml"), "latin1.yaml is not text in UTF-8: invalid start byte at byte 18."),
        (
            ("deploy", "tab.yaml"),
            "tab.yaml:2:1: this is not YAML: while scanning for the next token found character '\\t' that cannot start "
            "any token. Indent with spaces.",
        ),
        (
            ("deploy", "a:b", "--traffic-match", "x-canary"),
            "--traffic-match 'x-canary' is not NAME=VALUE: write for instance x-canary=1.",
        ),
        (
            ("deploy", "a:b", "--runtime-env-json", '{"env_var": {}}'),
            "runtime_env['env_var'] is unknown. Did you mean 'env_vars'?",
        ),
        (("status", "--wait", "nan"), "--wait must be a number of seconds or None, got NaN."),
        (("drain", "3f2a", "--timeout", "nan"), "--timeout must be a number of seconds or None, got NaN."),
    ],
)
def test_a_mistake_on_the_command_line(
    cluster: FakeCluster, in_directory: Path, words: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main.main, words)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")


@pytest.mark.parametrize("command", ["run", "deploy"])
@pytest.mark.parametrize(
    ("target", "place"), [("locked_shop:app", ""), ("locked.yaml", "locked.yaml:2:16: applications[0].import_path: ")]
)
def test_arguments_that_cannot_be_pickled_are_refused_before_ray_is_started(
    cluster: FakeCluster, in_directory: Path, command: str, target: str, place: str
) -> None:
    """With the words of `mesh.run` (item 75)."""
    cluster.is_there = False
    result = CliRunner().invoke(main.main, (command, target))
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {place}The arguments bound to Shop cannot be pickled, so no replica can get it: TypeError: cannot "
        "pickle '_thread.lock' object (found at: argument 1). Create what cannot travel (locks, sockets, clients) in "
        "the constructor instead.\n",
    )
    assert not cluster.is_there


@pytest.mark.parametrize(("name", "near"), [("shop/mash.yaml", "shop/mesh.yaml"), ("tib.yaml", "tab.yaml")])
def test_a_missing_file_names_a_similar_one_with_its_directory(
    cluster: FakeCluster, in_directory: Path, name: str, near: str
) -> None:
    result = CliRunner().invoke(main.main, ("deploy", name))
    assert (result.exit_code, result.output) == (
        1,
        f"Error: There is no file {in_directory / name}. Did you mean '{near}'?\n",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "a:b", "--grpc-port", "x"), "Invalid value for '--grpc-port': 'x' is not a valid port."),
        (
            ("status", "--wait", "shop"),
            "'shop' is not a number of seconds. Name the application first: `mesh status shop --wait`.",
        ),
        (("deplyo", "mesh.yaml"), "No such command 'deplyo'."),
        (("run", "a:b", "--port", "9"), "No such option '--port'"),
        (("delete",), "Missing argument 'NAME'."),
    ],
)
def test_arguments_that_a_command_does_not_take(words: tuple[str, ...], message: str) -> None:
    """Versions of click add what they guess."""
    result = CliRunner().invoke(main.main, words)
    assert result.exit_code == 2
    # They also write `option: --port` or `option '--port'`.
    marks = str.maketrans("", "", "':")
    assert message.rstrip(".").translate(marks) in result.output.splitlines()[-1].translate(marks)
