"""numpy, which is the user's dependency: only those who serve tensors need it."""

from __future__ import annotations

import importlib
from typing import Any


def load_numpy() -> Any:
    """The module. Raises ModuleNotFoundError saying what to install."""
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "mesh.inference needs numpy: pip install 'raymesh[inference]'.", name=error.name
        ) from error
