"""`runtime_env`: the keys of Ray's runtime environments. Ray itself ignores all others."""

from __future__ import annotations

from typing import Any

from mesh.options import option_checks
from mesh.options.absent_options import why_unknown

KEYS = (
    "working_dir", "py_modules", "excludes", "env_vars", "pip", "uv", "conda", "py_executable", "image_uri",
    "container", "java_jars", "worker_process_setup_hook", "nsight", "rocprof_sys", "config",
)  # fmt: skip


def checked(name: str, value: object) -> dict[str, Any]:
    """`value`, which errors call `name`. Raises ValueError for an unknown key, TypeError for a wrong type."""
    given = option_checks.mapping(name, value)
    for key in given:
        # Ray adds keys of its own, with an underscore, to the environments that it hands out.
        if option_checks.text(f"A key of {name}", key) not in KEYS and not key.startswith("_"):
            raise ValueError(f"{name}[{key!r}] {why_unknown(key, KEYS)}")
    for variable, text in option_checks.mapping(f"{name}['env_vars']", given.get("env_vars") or {}).items():
        if not isinstance(text, str):
            raise TypeError(f"{name}['env_vars'][{variable!r}] must be a string, got {text!r}: put it into quotes.")
    return given
