"""The order of the methods of a class: constructors, then what others call, then what only the class itself calls."""

import ast
from collections.abc import Iterator

from tests.source_files import Function, Source

CONSTRUCTORS = {"__new__", "__init__", "__post_init__", "__init_subclass__"}
HEADING = "    # ---- "


def methods_too_low(source: Source, owner: ast.ClassDef) -> Iterator[Function]:
    """Methods that stand below others which they should stand above, section by section.

    A section begins with a comment `# ---- Name ---` or behind a statement that is not a method. Factories may stand
    above the constructor.
    """
    for section in _sections(source, owner):
        lead = next((at for at, each in enumerate(section) if not _is_factory(each)), len(section))
        lowest = 0
        for method in section[lead:]:
            if _rank(method) < lowest:
                yield method
            lowest = max(lowest, _rank(method))


def _sections(source: Source, owner: ast.ClassDef) -> Iterator[list[Function]]:
    lines = source.text.splitlines()
    section: list[Function] = []
    end = owner.lineno
    for statement in owner.body:
        is_method = isinstance(statement, Function)
        if not is_method or any(HEADING in line for line in lines[end : statement.lineno]):
            yield section
            section = []
        if is_method:
            section.append(statement)
        end = statement.end_lineno or statement.lineno
    yield section


def _rank(method: Function) -> int:
    if method.name in CONSTRUCTORS:
        return 0
    return 2 if method.name.startswith("_") and not method.name.endswith("__") else 1


def _is_factory(method: Function) -> bool:
    decorators = {ast.unparse(each) for each in method.decorator_list}
    return _rank(method) == 1 and bool({"classmethod", "staticmethod"} & decorators)
