"""The modules that promise to be pure, and what in one of them is not."""

import ast
import re
from collections.abc import Iterator

from tests.rooms import PURE_MODULES
from tests.source_files import PRODUCT, Source, imports, sources

_IMPURE_IMPORTS = {"asyncio", "os", "ray", "socket", "subprocess", "threading", "time", "uvloop"}
_CLOCK_READERS = {"now", "utcnow", "today"}
_SAYS_PURE = re.compile(r"\bPure\b")


def pure_modules() -> list[str]:
    """Those of the table, and all whose docstring says that they are."""
    said = {each.path for each in sources(*PRODUCT) if _SAYS_PURE.search(ast.get_docstring(each.tree) or "")}
    return sorted({*PURE_MODULES, *said})


def impurities(source: Source) -> Iterator[str]:
    """What uses a clock, dice or I/O, a line each."""
    for each in imports(source):
        if each.target.split(".")[0] in _IMPURE_IMPORTS:
            yield f"{each.where}: a pure module does not import {each.target}; have the caller pass in what it needs"
    for node in source.nodes(ast.Attribute):
        assert isinstance(node, ast.Attribute)
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if owner == "random" and node.attr != "Random":
            yield f"{source.at(node)}: a pure module does not roll dice; take a `random.Random` as a parameter"
        if owner == "grpc" and node.attr != "StatusCode":
            yield f"{source.at(node)}: a pure module uses nothing of grpc but its status codes"
        if node.attr in _CLOCK_READERS:
            yield f"{source.at(node)}: a pure module does not read the clock; take `now_s` as a parameter"
