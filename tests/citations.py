"""Prose of the repository (docstrings, comments, documents), and what it cites: items of docs/contract.md and paths."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "docs" / "contract.md"

_CODE = ("mesh", "gateway", "tests", "benchmarks", "examples")
_GENERATED = ("_pb2.py", "_pb2_grpc.py")
_ITEM = re.compile(r"^- \*\*([CDL]?[1-9]\d*)\.\*\* \S", re.MULTILINE)
_ITEMS = re.compile(r"\bitems? ([1-9]\d*(?:(?:, | and |–|-| to )[1-9]\d*)*)(?![\w%])", re.IGNORECASE)
_FORM = re.compile(r"\((?:item \d+|items \d+(?:(?:, |–)\d+)+|[CDL]\d+)(?:, [CDL]\d+)*\)")
_RANGE = re.compile(r"(\d+)(?:–|-| to )(\d+)")
_LETTERED = re.compile(r"(?<![\w/.`\"'-])([CDL][1-9]\d?)(?!\w)")
_NAME = re.compile(r"(?<![\w./@-])(?:mesh|gateway|tests|benchmarks|examples)(?:\.[A-Za-z_]\w*)+(?![\w/])")
_PATH = re.compile(r"(?<![\w./-])(?:mesh|gateway|tests|docs|protos|examples|benchmarks)/[\w./*-]*")


@dataclass(frozen=True)
class Prose:
    """A docstring, a comment or a document."""

    path: str
    line: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def contract_numbers(text: str) -> list[str]:
    """Numbers of the items that a contract states, in its order: "12", "C3", "D4", "L20"."""
    return _ITEM.findall(text)


def cited_numbers(text: str) -> list[str]:
    """Numbers of the items that `text` cites, ranges in full."""
    found = [number for match in _ITEMS.finditer(text) for number in _spelled_out(match[1])]
    return found + _LETTERED.findall(text)


def is_well_cited(text: str) -> bool:
    """Whether all citations stand in parentheses, in the one form there is, behind something that is said."""
    rest = _FORM.sub("", text)
    return not cited_numbers(rest) and (rest == text or bool(rest.strip(" .")))


def cited_paths(text: str) -> list[str]:
    """Files and folders of the repository that `text` names; a folder ends with a slash."""
    paths = [path.rstrip(".") for path in _PATH.findall(text) if "*" not in path]
    return [path for path in paths if path.endswith("/") or "." in path]


def cited_names(text: str) -> list[str]:
    """Dotted names of our modules, and of what is in them; not names of files such as mesh.yaml."""
    return [name for name in _NAME.findall(text) if not name.endswith(".yaml")]


def _spelled_out(numbers: str) -> Iterator[str]:
    for first, last in _RANGE.findall(numbers):
        yield from map(str, range(int(first), int(last) + 1))
    yield from re.findall(r"\d+", _RANGE.sub("", numbers))


@cache
def tests_by_item() -> dict[str, list[str]]:
    """The tests whose docstrings cite an item, as pytest names them, by the item's number."""
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            for number in cited_numbers(" ".join((ast.get_docstring(node) or "").split())):
                found.setdefault(number, []).append(f"{path.relative_to(ROOT).as_posix()}::{node.name}")
    return found


@cache
def all_prose() -> tuple[Prose, ...]:
    """Of our code, protos, documents and the Makefile."""
    return (*code_prose(), *document_prose())


@cache
def code_prose() -> tuple[Prose, ...]:
    files = [path for folder in _CODE for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
    prose = [
        each
        for path in files
        if not path.name.endswith(_GENERATED)
        for each in python_prose(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    return (*prose, *_proto_prose())


@cache
def document_prose() -> tuple[Prose, ...]:
    paths = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "Makefile"]
    return tuple(Prose(path.relative_to(ROOT).as_posix(), 1, path.read_text()) for path in paths)


def python_prose(path: str, source: str) -> list[Prose]:
    """Docstrings, those of attributes too, and comments; other strings are data."""
    return [*_docstrings(path, source), *_comments(path, source)]


def _docstrings(path: str, source: str) -> Iterator[Prose]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Prose(path, node.lineno, " ".join(node.value.value.split()))


def _comments(path: str, source: str) -> Iterator[Prose]:
    """Comments on lines that follow each other are one."""
    if "#" not in source:
        return
    first, last, text = 0, 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                if text:
                    yield Prose(path, first, text)
                first, text = token.start[0], ""
            last = token.start[0]
            text = f"{text} {token.string.lstrip('# ')}".strip()
    if text:
        yield Prose(path, first, text)


def _proto_prose() -> list[Prose]:
    return [
        Prose(path.relative_to(ROOT).as_posix(), number, comment.strip())
        for folder in ("protos", *_CODE)
        for path in sorted(ROOT.glob(f"{folder}/**/*.proto"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (comment := line.partition("//")[2])
    ]
