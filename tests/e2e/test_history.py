"""`mesh rollback` and `mesh history` on a real Ray, with clients that call all the time."""

import getpass
import threading
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner

import mesh
from mesh.cli import main
from tests.e2e.replicas import running
from tests.e2e.waiting import until


@mesh.deployment(ray_actor_options={"num_cpus": 0}, min_ready_s=0.5)
class Versioned:
    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self) -> str:
        return self.version


def test_a_rollback_brings_back_the_code_before_and_refuses_no_call(deploy: Callable[..., Any]) -> None:
    """The arguments of the version before are in its stored code."""
    handle = deploy(Versioned.bind("one"), "versions")
    deploy(Versioned.bind("two"), "versions")
    until(lambda: handle.remote().result(timeout_s=20) == "two", timeout_s=30)
    runner = CliRunner()
    until(lambda: "goes back to" in runner.invoke(main.main, ["history", "versions"]).output, timeout_s=30)
    errors: list[Exception] = []
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            try:
                handle.remote().result(timeout_s=20)
            except Exception as error:  # every failure fails the test
                errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        back = runner.invoke(main.main, ["rollback", "versions"])
        assert back.exit_code == 0, back.output
        until(lambda: handle.remote().result(timeout_s=20) == "one", timeout_s=30)
    finally:
        is_over.set()
        caller.join(timeout=30)
    assert errors == []
    scaled = runner.invoke(main.main, ["scale", "versions", "Versioned", "2"])
    assert scaled.exit_code == 0, scaled.output
    assert len(running("versions", "Versioned")) == 2
    shown = runner.invoke(main.main, ["history", "versions"]).output
    assert "versions/Versioned: num_replicas: 1 -> 2 (nothing restarts)" in shown
    assert f"rollback  {getpass.getuser()}@" in shown
    assert "versions/Versioned: code or bound arguments (replicas are replaced)" in shown
