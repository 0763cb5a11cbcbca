"""A fault that someone could put into the controller, as one edit of its source, and the tests that see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("mesh/controller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    """What the controller does wrong with it."""
    file: str
    """Below mesh/controller."""
    old: str
    """Stands there exactly once."""
    new: str
    tests: tuple[str, ...]
    """Files below tests/ that see it. At least one of their tests fails."""

    def applied(self, source: str) -> str:
        """Raises LookupError where the text to be replaced does not stand there exactly once."""
        if (count := source.count(self.old)) != 1:
            raise LookupError(
                f"{self.name}: {self.file} has its text {count} times, not once. Adapt the mutant to the code of now,"
                f" or remove it with what it was about:\n{self.old}"
            )
        return source.replace(self.old, self.new)


PLANNER, ROLLOUT, PICTURE = "plan/planner.py", "plan/rollout.py", "plan/cluster_picture.py"
REGISTRY, KEEPER, CALLS = "actors/registry/actor_registry.py", "actors/replica_keeper.py", "actors/actor_calls.py"
STORE, GENERATIONS, CHANGE = (
    "store/desired_store.py",
    "desired/changes/generations.py",
    "desired/changes/desired_change.py",
)
