"""A test of the tests: each mutant of the controller has to make them fail.

`python -m tests.mutants` tries all, `python -m tests.mutants canary drain` those whose names have one of these words.
Each runs in a copy of the tree: first the tests that the catalogue names, and if they pass, all others of the
controller. A mutant that these catch is caught, and its entry should name the test.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.documents import ROOT
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import SOURCE, Mutant

NEEDED = ("mesh", "gateway", "tests", "pyproject.toml")
ALL = ("unit/controller", "sim")
TIMED = (
    "unit/controller/test_scale.py",
    "unit/controller/test_mass_deploy.py",
    "unit/controller/test_decision_cost.py",
)
"""They fail on a busy machine, which is not the mutant's doing."""
RUN_MAX_S = 1200.0
"""Of one run of the tests. A mutant that hangs them is not caught: nothing would say what is wrong."""
_PASSED, _FAILED = 0, 1
"""Exit statuses of pytest. With others it has run no test."""


class Outcome(Enum):
    CAUGHT = "caught"
    CAUGHT_ELSEWHERE = "caught, but not by the tests that its entry names"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN: the tests did not run, or did not end"


@dataclass(frozen=True, slots=True)
class Result:
    mutant: Mutant
    outcome: Outcome
    duration_s: float
    detail: str = ""


class Tree:
    """A copy of what the tests need."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)

    def run(self, tests: Sequence[str]) -> tuple[int | None, str]:
        """The exit status of pytest, None where it took too long, and what it said last."""
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--no-header"]
        paths = [f"tests/{each}" for each in tests]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        try:
            done = subprocess.run(
                [*command, *(f"--ignore=tests/{each}" for each in TIMED), *paths],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=RUN_MAX_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, f"no end within {RUN_MAX_S:g} s"
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
        failed = next((line for line in lines if line.startswith("FAILED ")), lines[-1])
        return done.returncode, failed.removeprefix("FAILED ").partition(" - ")[0]

    def try_out(self, mutant: Mutant) -> Result:
        began_at_s = time.monotonic()
        path = self.root / SOURCE / mutant.file
        source = path.read_text()
        path.write_text(mutant.applied(source))
        try:
            outcome, detail = self._outcome(mutant)
        finally:
            path.write_text(source)
        return Result(mutant, outcome, time.monotonic() - began_at_s, detail)

    def _outcome(self, mutant: Mutant) -> tuple[Outcome, str]:
        for tests, caught in ((mutant.tests, Outcome.CAUGHT), (ALL, Outcome.CAUGHT_ELSEWHERE)):
            status, detail = self.run(tests)
            if status == _FAILED:
                return caught, detail
            if status != _PASSED:
                return Outcome.BROKEN, detail
        return Outcome.SURVIVED, ""


def main(words: Sequence[str]) -> int:
    chosen = [each for each in MUTANTS if not words or any(word in each.name for word in words)]
    if not chosen:
        print(f"No mutant has one of these words in its name: {' '.join(words)}")
        return 2
    for mutant in chosen:
        mutant.applied((ROOT / SOURCE / mutant.file).read_text())
    with tempfile.TemporaryDirectory(prefix="mesh-mutants-") as directory:
        count = min(os.cpu_count() or 1, len(chosen))
        trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for number in range(count):
            trees.put(Tree(Path(directory) / str(number)))
        _check_unchanged(trees, chosen)
        results = _try_all(chosen, trees, count)
    return _report(results)


def _check_unchanged(trees: queue.SimpleQueue[Tree], chosen: Sequence[Mutant]) -> None:
    """Without a mutant the tests pass, in the copy."""
    tree = trees.get()
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    print(f"The {len(tests)} files of tests that see mutants, without one ...", flush=True)
    status, detail = tree.run(tests)
    if status != _PASSED:
        raise SystemExit(f"They fail without a mutant, so they can show nothing: {detail}")
    trees.put(tree)


def _try_all(chosen: Sequence[Mutant], trees: queue.SimpleQueue[Tree], count: int) -> list[Result]:
    def attempt(mutant: Mutant) -> Result:
        tree = trees.get()
        try:
            return tree.try_out(mutant)
        finally:
            trees.put(tree)

    results = []
    with ThreadPoolExecutor(count) as pool:
        for number, done in enumerate(as_completed([pool.submit(attempt, each) for each in chosen]), start=1):
            result = done.result()
            results.append(result)
            what = f"{result.outcome.value}: {result.mutant.name}"
            print(f"{number:3}/{len(chosen)} {result.duration_s:5.0f} s  {what}  {result.detail}".rstrip(), flush=True)
    return results


def _report(results: Sequence[Result]) -> int:
    wrong = [each for each in results if each.outcome in (Outcome.SURVIVED, Outcome.BROKEN)]
    print(f"{len(results) - len(wrong)} of {len(results)} mutants were caught.")
    for result in wrong:
        print(f"{result.outcome.value}: a controller that {result.mutant.name} ({SOURCE / result.mutant.file})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
