"""The modules that are compiled for a measurement: they are there, and mypyc can compile them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compiled import MODULES, ROOT


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def classes(module: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.ClassDef))


def test_every_module_is_there_once_in_order() -> None:
    assert list(MODULES) == sorted(set(MODULES))
    assert all((ROOT / name).is_file() for name in MODULES)


def test_no_compiled_module_has_an_async_generator() -> None:
    for name in MODULES:
        for function in ast.walk(parsed(ROOT / name)):
            if isinstance(function, ast.AsyncFunctionDef):
                assert not any(isinstance(node, ast.Yield) for node in ast.walk(function)), f"{name}: {function.name}"


def test_no_class_that_stays_python_inherits_from_a_compiled_one() -> None:
    compiled = {each.name for name in MODULES for each in classes(parsed(ROOT / name))}
    for path in [*ROOT.glob("mesh/**/*.py"), *ROOT.glob("gateway/**/*.py")]:
        if str(path.relative_to(ROOT)) not in MODULES:
            for each in classes(parsed(path)):
                parents = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in each.bases}
                assert not parents & compiled, f"{path}: {each.name}"
