"""The changes of the desired state that the controller makes by itself, from what it has seen: each is stored first."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

from mesh.controller.actors.node_list import NodeList
from mesh.controller.actors.registry.actor_registry import ActorRegistry
from mesh.controller.desired.changes.gateway_generations import with_proven_gateways
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.controller_faults import Problems
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.nodes.cordons import newly_drained, uncordoned, with_drained
from mesh.controller.nodes.node_names import title_of
from mesh.controller.plan.failed_updates import failed_canaries, failed_updates
from mesh.controller.plan.gateway_plan import have_all_changed
from mesh.controller.plan.proofs import new_proofs
from mesh.controller.scaling.scaling_memory import Autoscaler


class Clocks(NamedTuple):
    monotonic: Callable[[], float]
    unix: Callable[[], float]


class OwnChanges:
    def __init__(self, wanted: DesiredKeeper, registry: ActorRegistry, node_list: NodeList, clocks: Clocks) -> None:
        self._wanted = wanted
        self._registry = registry
        self._node_list = node_list
        self._clocks = clocks

    def proofs(self) -> Proofs:
        """What replicas have shown that is not stored yet."""
        return new_proofs(
            self._wanted.desired, self._registry.observed(), self._clocks.monotonic(), self._clocks.unix()
        )

    async def record_proofs(self) -> None:
        """Store which versions have run, and which replace the version before for good."""
        if proofs := self.proofs():
            await self._wanted.try_change(functools.partial(with_proofs, proofs=proofs), "what has been proven")
        desired, seen = self._wanted.desired, self._registry.observed()
        if have_all_changed(desired, seen, self._clocks.monotonic()):
            edit = functools.partial(with_proven_gateways, revision=desired.gateways_revision)
            event = "all gateways have their new options"
            await self._wanted.try_change(edit, f"that {event}", [event])

    async def scale(self, autoscaler: Autoscaler) -> Problems:
        """Adapt the numbers of replicas to the load, before the planner sees them. Returns what went wrong with it."""
        desired = self._wanted.desired
        decided = autoscaler.decide(desired, self._registry.observed().by_deployment())
        if decided:
            targets = {key: (desired.deployments[key].num_replicas, target) for key, target in decided.items()}
            events = [
                f"scaling {key} from {before} to {after} replicas: {autoscaler.explain(key)}"
                for key, (before, after) in targets.items()
            ]
            await self._wanted.try_scale(targets, events)
        return autoscaler.problems

    async def forget_cordons(self) -> None:
        """Drop the cordons of nodes that have been gone for long."""
        if gone := self._node_list.long_gone(self._wanted.desired.cordons):
            edit = functools.partial(uncordoned, node_ids=gone)
            await self._wanted.try_change(edit, "the cordons of nodes that are gone")

    async def record_drained(self) -> None:
        """Store, and say once, which drains have ended."""
        if drained := newly_drained(self._wanted.desired, self._registry.observed()):
            edit = functools.partial(with_drained, node_ids=[node.node_id for node in drained])
            events = [
                f"node {title_of(node)} is drained:"
                f" {'its replicas have left, and it stays' if node.is_head else 'it can be switched off'}"
                for node in drained
            ]
            await self._wanted.try_change(edit, "that drains have ended", events)

    async def undo_failures(self) -> None:
        """Take back what has failed, where its deployments ask for it."""
        desired, observed = self._wanted.desired, self._registry.observed()
        updates, canaries = failed_updates(desired, observed), failed_canaries(desired, observed)
        if updates or canaries:
            events = [
                *(f"application {app} goes back to the version before: {reason}" for app, reason in updates.items()),
                *(f"application {app} goes on without its canary: {reason}" for app, reason in canaries.items()),
            ]
            edit = self._wanted.undoing(updates, canaries)
            await self._wanted.try_change(edit, "rollbacks", events, logging.WARNING)
