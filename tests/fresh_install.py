"""The wheel in a clean environment, with the newest or the oldest versions of what it needs.

`python -m tests.fresh_install newest` builds the wheel, installs it as pip resolves it, and runs unit tests, the demo
and end-to-end tests with it, outside of the repository. `oldest` does so with the lower bounds of pyproject.toml.
With both words the wheel is built once, and both are installed and run their unit tests at the same time. Names of
parts leave the others out: `unit` installs and runs the unit tests, `demo` and `end-to-end` use what it has installed.
So `make test` runs each part beside what it does not disturb. The environments stay below build/ for the next run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.documents import ROOT

PROJECT = ROOT / "pyproject.toml"
ENVIRONMENTS = ROOT / "build" / "installs"
WHEEL_SOURCES = ("mesh", "gateway", "pyproject.toml", "README.md", "LICENSE")
TESTED = ("tests", "examples", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")
NOT_OF_THE_WHEEL = (
    "benchmarks",
    "test_contract.py",
    "test_docs.py",
    "test_monitoring.py",
    "test_mutants.py",
    "test_types.py",
)
"""Unit tests of the repository."""
SLOW_AND_PURE = (
    *("controller", "gateway/http1", "logs", "routing", "declarative/test_content_version.py"),
    *("gateway/access/test_api_keys.py", "gateway/dialects/test_json_hostile.py"),
    *(f"gateway/dialects/test_websocket{each}.py" for each in ("", "_limits", "_opening")),
    *("gateway/test_bombs.py", "link/test_callers_that_vanish.py", "wire/test_silent_peers.py"),
    *("client/test_early_end.py", "memory/test_returned_memory.py"),
    *("cli/test_run_reload.py", "gateway/test_dripping_clients.py", "handle/test_any_interleaving.py"),
    *("http2/test_floods.py", "http2/test_fuzz.py", "http2/test_honest_peers.py", "rpc/test_silent_servers.py"),
    *("http2/test_oracle.py", "http2/test_hpack_oracle.py"),
)
"""Unit tests that are the same with every version of other packages."""
END_TO_END_TESTS = ("errors", "gateway", "large_payloads", "leftovers")
ONLY_WITH_THE_NEWEST = ("first_hour",)
"""A minute of what users do, with the versions that they get; `make test` tries it nowhere else."""
TESTED_EXTRAS = ("certs", "inference", "jwt", "tracing", "test")
_LOWER_BOUND = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)")


def main(*words: str) -> None:
    which = [each for each in words if each not in PARTS]
    with tempfile.TemporaryDirectory(prefix="mesh-install-") as directory:
        root = Path(directory)
        project = root / "project"
        copy(TESTED, project)
        for name, part in PARTS.items():
            if name in words or PARTS.keys().isdisjoint(words):
                part(which, root, project)


def try_unit_tests(which: Sequence[str], root: Path, project: Path) -> None:
    wheel = build_wheel(root)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda each: install(wheel, each, root), which))
        # Both together have a worker for each core: to collect all tests takes a worker a quarter of a minute.
        workers = max(1, (os.cpu_count() or 1) // len(which))
        list(threads.map(lambda each: run_unit_tests(python_of(each), project, workers), which))


def try_demo(which: Sequence[str], root: Path, project: Path) -> None:
    """It listens on the default ports, and uses the Ray that it finds on the machine: there must be none."""
    for each in which:
        run(python_of(each), "-m", "examples.demo", cwd=project)


def try_end_to_end(which: Sequence[str], root: Path, project: Path) -> None:
    for each in which:
        chosen = (*END_TO_END_TESTS, *(ONLY_WITH_THE_NEWEST if each == "newest" else ()))
        run(python_of(each), "-m", "pytest", "-q", *(f"tests/e2e/test_{name}.py" for name in chosen), cwd=project)


PARTS = {"unit": try_unit_tests, "demo": try_demo, "end-to-end": try_end_to_end}


def build_wheel(root: Path) -> Path:
    """From a copy, because setuptools would add what earlier builds left below build/."""
    copy(WHEEL_SOURCES, root / "sources")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", root, root / "sources")
    (wheel,) = root.glob("*.whl")
    return wheel


def python_of(which: str) -> Path:
    return ENVIRONMENTS / which / "bin" / "python"


def install(wheel: Path, which: str, root: Path) -> None:
    """The wheel and what its tests need, in an environment of its own."""
    python = python_of(which)
    if not python.exists() or python.lstat().st_mtime < PROJECT.stat().st_mtime:
        # What is no longer a dependency must not stay.
        run(sys.executable, "-m", "venv", "--clear", ENVIRONMENTS / which, is_alone=False)
    constraints = root / f"constraints-{which}.txt"
    constraints.write_text("\n".join(oldest_versions()) if which == "oldest" else "")
    pip(python, "uninstall", "--yes", "raymesh")
    newest = ("--upgrade", "--upgrade-strategy", "eager")
    pip(python, "install", *newest, "--constraint", constraints, f"{wheel}[test]")


def oldest_versions() -> Iterator[str]:
    """`click>=8.1,<9` as `click==8.1`, for all that the wheel and its tests need."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    optional = project["optional-dependencies"]
    needed = (*project["dependencies"], *(each for extra in TESTED_EXTRAS for each in optional[extra]))
    for requirement in needed:
        if requirement.startswith("raymesh["):
            continue
        bound = _LOWER_BOUND.match(requirement)
        if bound is None:
            sys.exit(f"pyproject.toml: {requirement} needs a lower bound")
        yield f"{bound['name']}=={bound['version']}"


def run_unit_tests(python: Path, project: Path, workers: int) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "list", cwd=project, is_alone=False)
    wheel_only = (
        "import sys, gateway, mesh; assert all(each.__file__.startswith(sys.prefix) for each in (gateway, mesh))"
    )
    run(python, "-c", wheel_only, cwd=project, is_alone=False)
    ignored = (f"--ignore=tests/unit/{each}" for each in (*NOT_OF_THE_WHEEL, *SLOW_AND_PURE))
    plain = ("-q", "-p", "no:cacheprovider")
    run(python, "-m", "pytest", *plain, "-n", str(workers), "tests/unit", *ignored, cwd=project, is_alone=False)


def pip(python: str | Path, *arguments: str | Path) -> None:
    """Silent unless it fails. Isolated, because a checkout on Python's path counts as installed."""
    command = [python, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)


def run(*command: str | Path, cwd: Path = ROOT, is_alone: bool = True) -> None:
    """What a command says is shown when it has ended, if others run at the same time."""
    started_at_s = time.monotonic()
    line = f"$ {' '.join(map(str, command))}"
    if is_alone:
        print(line, flush=True)
    output = None if is_alone else subprocess.PIPE
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(), check=False, stdout=output, stderr=subprocess.STDOUT, text=True
    )
    if not is_alone:
        print(f"{line}\n{done.stdout}", end="", flush=True)
    print(f"  {time.monotonic() - started_at_s:.0f} s", flush=True)
    done.check_returncode()


def clean_environment() -> dict[str, str]:
    """Without the checkout on Python's path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def copy(names: Iterable[str], target: Path) -> None:
    target.mkdir()
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


if __name__ == "__main__":
    # Started in the background by a shell without job control, it would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
