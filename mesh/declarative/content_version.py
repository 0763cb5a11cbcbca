"""The version of a deployment's code: the same for the same content, on any machine at any time (item 185).

The digest covers the name of the class, the arguments bound to it, and the source of its module and of all modules
which that imports, if they are the user's own files. Installed packages are left out: their versions belong to the
environment. The pickle of the class is left out too: it differs between processes. A class made by a function may
depend on more than its source; for such a class the digest also covers the import path, the arguments of the builder
and the runtime environment, which are all the inputs of that function.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mesh.usercode import user_code
from mesh.usercode.user_code import UserCode

_MODULES_MAX = 2000


def make_version_of(recipe: bytes) -> Callable[[UserCode, bytes], str]:
    """`recipe` has the inputs of the application: import path, arguments and runtime environment."""

    def version_of(code: UserCode, packed: bytes) -> str:
        parts = [_name(each).encode() for each in (code.callable, *code.servicer_functions)]
        parts.append(user_code.pickled_arguments(packed))
        parts.extend(_sources_of(code.callable.__module__))
        if not _is_importable(code.callable):
            parts.append(recipe)
        return _digest(parts)

    return version_of


def source_digest(module: str) -> str:
    """Of the source of a module and of the user's modules that it imports. Empty if it is not the user's own."""
    sources = _sources_of(module)
    return _digest(sources) if sources else ""


def _digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _is_importable(target: Callable[..., Any]) -> bool:
    """Whether its source defines it completely."""
    found: Any = sys.modules.get(target.__module__)
    for part in target.__qualname__.split("."):
        found = getattr(found, part, None)
    # The decorator replaces the class by a deployment of the same name.
    return getattr(found, "func_or_class", found) is target and target.__module__ != "__main__"


def _name(target: Callable[..., Any]) -> str:
    return f"{target.__module__}:{target.__qualname__}"


def _sources_of(module: str) -> list[bytes]:
    """Sources of the module and of the user's modules that it imports, in the order of their names."""
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting and len(found) < _MODULES_MAX:
        name = waiting.pop()
        path = None if name in found else _users_file(name)
        if path is None:
            continue
        found[name] = path.read_bytes()
        waiting.extend(_imported_by(found[name], name, is_package=path.name == "__init__.py"))
    return [found[name] for name in sorted(found)]


def _users_file(module: str) -> Path | None:
    parent = module.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # find_spec would execute its package
    loaded = sys.modules.get(module)
    try:
        spec = importlib.util.find_spec(module) if loaded is None else getattr(loaded, "__spec__", None)
    except (ImportError, ValueError):
        return None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec is not None else None)
    path = Path(origin) if origin else None
    if path is None or path.suffix != ".py" or not path.exists() or user_code.is_installed(path):
        return None
    return path


def _imported_by(source: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that may be imported, also inside functions. Names that are not modules are skipped later."""
    package = module if is_package else module.rpartition(".")[0]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # for another version of Python: what is imported here was read
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = _absolute(node, package)
            yield from _with_parents(start)
            yield from (f"{start}.{alias.name}" for alias in node.names if start)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join((*parts[: len(parts) - node.level + 1], *filter(None, [node.module])))


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
