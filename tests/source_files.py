"""Our source files as the tests of the architecture read them: parsed, with their imports, functions and classes."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("mesh", "gateway")
OWN_CODE = (*PRODUCT, "benchmarks", "examples")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2_grpc.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One parsed file of ours."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{node.lineno}"

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


@dataclass(frozen=True)
class Import:
    """One name that a file imports, as the longest dotted path that can be a module."""

    target: str
    where: str


@cache
def sources(*roots: str) -> tuple[Source, ...]:
    paths = sorted(path for root in roots for path in (ROOT / root).rglob("*.py"))
    return tuple(parse(path) for path in paths if not path.name.endswith(GENERATED_SUFFIXES))


@cache
def parse(path: Path) -> Source:
    text = path.read_text()
    return Source(str(path.relative_to(ROOT)), text, ast.parse(text, filename=str(path)))


def imports(source: Source) -> Iterator[Import]:
    for node in source.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, source.at(node)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = absolute_start(source, node)
            yield from (Import(submodule_or_module(start, alias.name), source.at(node)) for alias in node.names)


def absolute_start(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".") + (["__init__"] if source.path.endswith("__init__.py") else [])
    return ".".join(package[: -node.level] + ([node.module] if node.module else []))


def submodule_or_module(start: str, name: str) -> str:
    """`from mesh.wire import payload` and `from mesh.wire.payload import encode` both import mesh.wire.payload."""
    place = ROOT / start.replace(".", "/") / name
    return f"{start}.{name}" if place.with_suffix(".py").exists() or place.is_dir() else start


def first_party_imports(source: Source) -> Iterator[Import]:
    return (each for each in imports(source) if each.target.split(".")[0] in PRODUCT)


def is_package(source: Source) -> bool:
    return source.path.endswith("__init__.py")


def functions() -> Iterator[tuple[Source, Function]]:
    for source in sources(*OWN_CODE):
        for node in source.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield source, node


def classes() -> Iterator[tuple[Source, ast.ClassDef]]:
    for source in sources(*OWN_CODE):
        for node in source.nodes(ast.ClassDef):
            if isinstance(node, ast.ClassDef):
                yield source, node


def length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def self_attributes(owner: ast.ClassDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(owner)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def parameter_count(function: Function) -> int:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])
