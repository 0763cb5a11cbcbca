"""Classes and functions of a program's own module: of a script, and of one that has no file, as in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.e2e.conftest import Gateway

PROGRAM = Path(__file__).with_name("everything_in_main.py")


@pytest.mark.parametrize("has_file", [True, False], ids=["script", "without a file"])
def test_everything_in_main_is_deployed_by_value(gateway: Gateway, has_file: bool) -> None:
    """It holds for inheritance, dataclasses, generics, enums, models, errors, closures and constants (items 20, 96–99).

    What comes back has the classes of the program, and a class that is defined again is deployed as it is then.
    """
    command = [sys.executable, str(PROGRAM) if has_file else "-"]
    done = subprocess.run(
        command,
        input=None if has_file else PROGRAM.read_text(),
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
