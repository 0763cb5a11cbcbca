"""`ControllerOptions`: the environment of the controller's process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.options import runtime_env
from mesh.options.keyword_advice import with_field_advice
from mesh.options.option_record import record_of

_NAME = "controller_options"
_RUNTIME_ENV = f"{_NAME}['runtime_env']"


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """Options of the controller's actor, for the start of the mesh; Ray keeps them when it restarts the actor.

    Ray also hands them on to the actors that the controller starts, which are the gateways and the replicas. A replica
    whose own `runtime_env` has a variable of the same name has that one.
    """

    runtime_env: Mapping[str, Any] | None = None
    """Only `env_vars`, such as `{"env_vars": {"MESH_CONTROLLER_MIN_READY_S": "5"}}`: the controller runs no code of the
    user, so it needs no packages."""

    def __post_init__(self) -> None:
        if self.runtime_env is None:
            return
        given = runtime_env.checked(_RUNTIME_ENV, self.runtime_env)
        for key in given:
            if key != "env_vars":
                raise ValueError(
                    f"{_RUNTIME_ENV} has {key!r}: only env_vars can be set for the controller. "
                    "Give other runtime environments to the deployments, in their ray_actor_options."
                )

    @property
    def env_vars(self) -> dict[str, str]:
        return dict((self.runtime_env or {}).get("env_vars") or {})

    def digest(self) -> str:
        """Equal for equal options, empty for none. It is stored to compare them, because values may be secrets."""
        if not self.env_vars:
            return ""
        return hashlib.sha256(json.dumps(self.env_vars, sort_keys=True).encode()).hexdigest()[:16]


def parse(value: ControllerOptions | Mapping[str, Any] | None) -> ControllerOptions:
    """Raises TypeError or ValueError naming what is wrong."""
    return ControllerOptions() if value is None else record_of(ControllerOptions, _NAME, value)
