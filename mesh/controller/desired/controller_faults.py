"""Faults of the controller itself, confined to the deployment where they occur.

Every step of a turn hands in its problems, and these hold until the same step hands in others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set

from mesh.routing.snapshot import DeploymentKey

logger = logging.getLogger("mesh")

_TEXT_MAX_CHARS = 500

Problems = dict[DeploymentKey, Exception]


class confined:
    """What goes wrong inside, a fault of ours of any kind, is a problem of that deployment alone."""

    __slots__ = ("_key", "_problems")

    def __init__(self, key: DeploymentKey, problems: Problems) -> None:
        self._key = key
        self._problems = problems

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._problems[self._key] = error
        return True


class ControllerFaults:
    def __init__(self) -> None:
        self._by_step: dict[str, dict[DeploymentKey, str]] = {}
        self._logged: set[tuple[DeploymentKey, str]] = set()

    def note(self, step: str, problems: Mapping[DeploymentKey, Exception]) -> None:
        """The problems that this step has now. What is new goes to the log, once: turns are many."""
        self._by_step[step] = {key: _text(step, error) for key, error in problems.items()}
        for key, text in self._by_step[step].items():
            if (key, text) not in self._logged:
                self._logged.add((key, text))
                logger.error("deployment %s: %s", key, text, exc_info=problems[key])

    def keep(self, keys: Set[DeploymentKey]) -> None:
        """The others are no longer wanted."""
        self._logged = {(key, text) for key, text in self._logged if key in keys}

    def texts(self) -> dict[DeploymentKey, str]:
        """What users read, by deployment."""
        found: dict[DeploymentKey, list[str]] = {}
        for texts in self._by_step.values():
            for key, text in texts.items():
                found.setdefault(key, []).append(text)
        return {key: "\n".join(texts) for key, texts in found.items()}


def _text(step: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}"[:_TEXT_MAX_CHARS]
    return f"The controller's {step} of this deployment fails, other deployments go on: {reason}"
