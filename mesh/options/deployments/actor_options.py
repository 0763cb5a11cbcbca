"""`ray_actor_options`: the resources and runtime environment of a replica's actor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mesh.options import option_checks, runtime_env
from mesh.options.absent_options import why_unknown
from mesh.v1 import control_pb2

KEYS = ("accelerator_type", "memory", "num_cpus", "num_gpus", "resources", "runtime_env")
_MEMORY_MAX_BYTES = 2**53
_OWN_OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""Resources that Ray does not take among the custom ones."""


def checked(options: object) -> dict[str, Any]:
    """A validated copy with `num_cpus` defaulting to 1. Raises TypeError or ValueError naming the bad key."""
    given = option_checks.mapping("ray_actor_options", {} if options is None else options)
    for key in given:
        if key not in KEYS:
            raise ValueError(f"ray_actor_options[{key!r}] {why_unknown(key, KEYS)}")
    result: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    result.setdefault("num_cpus", 1)
    for key in ("num_cpus", "num_gpus", "memory"):
        option_checks.number(f"ray_actor_options[{key!r}]", result.get(key, 0))
    if result.get("memory", 0) > _MEMORY_MAX_BYTES:
        raise ValueError(f"ray_actor_options['memory'] is in bytes and must be at most 2**53, got {result['memory']}.")
    option_checks.text("ray_actor_options['accelerator_type']", result.get("accelerator_type", ""))
    _check_resources(result.get("resources", {}))
    _runtime_env_json(result)
    return result


def to_message(options: Mapping[str, Any]) -> control_pb2.ActorOptions:
    """Checked options as the controller stores them."""
    return control_pb2.ActorOptions(
        num_cpus=options["num_cpus"],
        num_gpus=options.get("num_gpus", 0),
        memory_bytes=int(options.get("memory", 0)),
        resources=options.get("resources", {}),
        accelerator_type=options.get("accelerator_type", ""),
        runtime_env_json=_runtime_env_json(options),
    )


def _check_resources(resources: object) -> None:
    for name in option_checks.amounts("ray_actor_options['resources']", resources):
        if name in _OWN_OPTIONS:
            raise ValueError(
                f"ray_actor_options['resources'] is for custom resources, got {name!r}. "
                f"Write ray_actor_options[{_OWN_OPTIONS[name]!r}]."
            )


def _runtime_env_json(options: Mapping[str, Any]) -> str:
    environment = runtime_env.checked("ray_actor_options['runtime_env']", options.get("runtime_env", {}))
    if not environment:
        return ""
    try:
        return json.dumps(environment)
    except (TypeError, ValueError) as error:
        raise ValueError(f"ray_actor_options['runtime_env'] must be JSON-serializable: {error}.") from error
