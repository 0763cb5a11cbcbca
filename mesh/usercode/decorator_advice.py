"""Advice for code that is not decorated: a class has no `.bind()`, and Python's error does not say why.

`install` shows it where a script ends with that error; `mesh/declarative/import_path.py` shows it for imported modules.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FunctionType, TracebackType

ADVICE = "Decorate the class or function with @mesh.deployment"
_ADDED_BY_DECORATOR = frozenset({"bind", "options"})
_CALLED_THROUGH_HANDLE = "remote"


def advice_for(error: BaseException) -> str | None:
    """What to do about an attribute that only a deployment or its handle has, without a full stop."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, type | FunctionType):
        return None
    if error.name in _ADDED_BY_DECORATOR:
        return ADVICE
    if error.name == _CALLED_THROUGH_HANDLE:
        return f"{ADVICE}, then call it through its handle: handle = mesh.run(deployment.bind(...))"
    return None


def install() -> None:
    """Wrap `sys.excepthook`: an uncaught error of this kind gets its advice, and the hook before shows it."""
    hook_before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with suppress(Exception):  # an error must be shown, whatever its attributes are
            if advice := advice_for(error):
                error.add_note(f"{advice}.")
        hook_before(kind, error, trace)

    sys.excepthook = show
