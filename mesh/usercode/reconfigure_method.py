"""`reconfigure` of a user's class: what its parameters must be, which is checked where the class is decorated."""

from __future__ import annotations

import inspect

from mesh.context import NO_RANKS

_RANK = "rank"


def check_reconfigure(code: object, name: str) -> None:
    """Raises TypeError for a `reconfigure` without the configuration, or that needs a rank as in Ray Serve 2.60."""
    method = getattr(code, "reconfigure", None) if inspect.isclass(code) else None
    try:
        parameters = dict(inspect.signature(method).parameters) if callable(method) else {}
    except (TypeError, ValueError):  # written in C
        return
    if inspect.isfunction(method) and list(parameters) == ["self"]:
        raise TypeError(f"{name}.reconfigure takes no configuration. Write `def reconfigure(self, config)`.")
    if _RANK not in parameters or parameters[_RANK].default is not inspect.Parameter.empty:
        return
    if parameters[_RANK].kind is inspect.Parameter.KEYWORD_ONLY or list(parameters).index(_RANK) > 1:
        raise TypeError(f"{name}.reconfigure needs a rank. {NO_RANKS} Take the parameter out, or give it a default.")
