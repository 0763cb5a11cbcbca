"""`mesh run --reload` and `--working-dir` in processes of their own (items 101, 243)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import ray

import mesh
from tests.e2e.conftest import Gateway
from tests.e2e.waiting import until

MODULES = {
    "words_to_reload": "GREETING = 'hello'",
    "still_to_reload": """
import os
import mesh

@mesh.deployment(ray_actor_options={"num_cpus": 0})
class Still:
    async def pid(self): return os.getpid()
""",
    "app_to_reload": """
import os
import mesh
from still_to_reload import Still
from words_to_reload import GREETING

@mesh.deployment(ray_actor_options={"num_cpus": 0})
class Front:
    def __init__(self, still): self.still = still
    async def __call__(self): return [GREETING, os.getpid(), await self.still.pid.remote(), os.getcwd()]

app = Front.bind(Still.bind())
""",
}
NAME = "reloaded"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A directory with an application of three modules."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@contextmanager
def running(*arguments: str) -> Iterator[Callable[[str], str]]:
    """`mesh run`, and a function that reads what it shows up to a line that begins so."""
    command = subprocess.Popen(
        [sys.executable, "-c", "from mesh.cli.main import main; main()", "run", "app_to_reload:app", *arguments],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert command.stdout is not None
    output = command.stdout

    def read_to(start: str) -> str:
        lines = []
        for line in output:
            lines.append(line)
            if line.startswith(start):
                return "".join(lines)
        pytest.fail(f"it ended before {start!r}: {''.join(lines)}")

    try:
        yield read_to
        command.send_signal(signal.SIGINT)
        rest, _ = command.communicate(timeout=40)
        assert command.returncode == 0, rest
    finally:
        command.kill()
        command.wait()
        output.close()
    assert NAME not in mesh.status().applications


def answer(gateway: Gateway) -> list[object]:
    found: list[object] = httpx.get(f"{gateway.http_url}/{NAME}", timeout=20, trust_env=False).raise_for_status().json()
    return found


def replace(path: Path, text: str) -> None:
    """In one step, as editors write: the command never reads the half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_change_replaces_what_it_concerns_and_an_error_nothing(gateway: Gateway, code: Path) -> None:
    """The deployment whose code has not changed keeps its process (items 185, 243)."""
    words = code / "words_to_reload.py"
    options = ["--name", NAME, "--route-prefix", f"/{NAME}", "--app-dir", str(code)]
    with running(*options, "--reload") as read_to:
        read_to("Running;")
        greeting, front, still, _ = answer(gateway)
        assert greeting == "hello"
        replace(words, "GREETING = 'howdy'")
        read_to("Running;")
        until(lambda: answer(gateway)[0] == "howdy")
        changed = answer(gateway)
        assert (changed[1] != front, changed[2]) == (True, still)
        replace(words, "GREETING = ")
        shown = read_to("What was running goes on")
        assert 'words_to_reload.py", line 1' in shown
        assert answer(gateway) == changed
        replace(words, "GREETING = 'again'")
        read_to("Running;")
        until(lambda: answer(gateway)[0] == "again")


def test_replicas_have_the_files_of_the_working_directory(gateway: Gateway, code: Path) -> None:
    """They run in a copy of it, wherever they are (items 101, 243)."""
    options = ["--name", NAME, "--route-prefix", f"/{NAME}", "--working-dir", str(code)]
    with running(*options) as read_to:
        read_to("Running;")
        greeting, *_, directory = answer(gateway)
        assert greeting == "hello"
        assert "working_dir_files" in str(directory)
