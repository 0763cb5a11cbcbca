"""The generations of an application: the wanted one, the one before, kept until it serves, and a proven one. Pure.

A deployment of an application has run when one of its replicas came up, and it is proven when all of them served at
once, for `min_ready_s` each. Both are stored. What has run is tried again without limit when it fails later. Until all
deployments of the wanted generation are proven, the last generation that served stays in the desired state, with its
code: its deployments and routes go on where the wanted generation has others, and its replicas are replaced when they
die. Deployments that only it has stop a little later than callers have been sent to the wanted ones.

A proven generation that was replaced for good is remembered for a rollback, one per application, with its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.state_edits import keep_only, next_version
from mesh.options.deployments.option_effects import config_version
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class Proofs:
    """What replicas have shown since it was stored last: versions by deployment."""

    ran: Mapping[DeploymentKey, str] = field(default_factory=dict)
    proven: Mapping[DeploymentKey, tuple[str, str]] = field(default_factory=dict)
    """Version, and version of the configuration."""
    succeeded: frozenset[str] = frozenset()
    """Applications that have been proven for a while, so that nothing calls their predecessors any more."""
    canaries_ran: Mapping[DeploymentKey, str] = field(default_factory=dict)
    canaries_proven: Mapping[DeploymentKey, tuple[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ran or self.proven or self.succeeded or self.canaries_ran or self.canaries_proven)


def succeed(
    before: control_pb2.ApplicationSpec | None,
    earlier: control_pb2.ApplicationSpec | None,
    application: control_pb2.ApplicationSpec,
) -> control_pb2.ApplicationSpec | None:
    """`application` is about to replace `before`, of which `earlier` is kept. Returns its predecessor, if it needs one.

    Takes over into `application` what is proven of deployments that it does not change.
    """
    for generation in (earlier, before):
        if generation is not None:
            take_over_proofs(generation, application)
    if before is None:
        return None
    has_served = earlier is None and any(each.has_run for each in before.deployments)
    predecessor = before if is_proven(before) or has_served else earlier
    is_kept = predecessor is not None and not (is_proven(application) and not _left_behind(predecessor, application))
    return predecessor if is_kept else None


def take_over_proofs(before: control_pb2.ApplicationSpec, after: control_pb2.ApplicationSpec) -> None:
    """What is proven of deployments that `after` does not change."""
    specs = {spec.name: spec for spec in before.deployments}
    for spec in after.deployments:
        known = specs.get(spec.name)
        if known is not None and known.version == spec.version:
            spec.has_run |= known.has_run
            if config_version(known.options) == config_version(spec.options):
                spec.is_proven |= known.is_proven
                spec.was_proven |= known.was_proven


def with_proofs(state: control_pb2.DesiredState, proofs: Proofs) -> control_pb2.DesiredState:
    """The state with these proofs. Those of deployments that were deployed again meanwhile are ignored."""
    changed = next_version(state)
    _mark(changed.applications, proofs.ran, proofs.proven)
    _mark(changed.canaries, proofs.canaries_ran, proofs.canaries_proven)
    proven = {app.name: app for app in changed.applications if is_proven(app)}
    kept: list[control_pb2.ApplicationSpec] = []
    replaced: list[control_pb2.ApplicationSpec] = []
    for before in changed.predecessors:
        is_needed = before.name not in proven or (
            before.name not in proofs.succeeded and _left_behind(before, proven[before.name])
        )
        (kept if is_needed else replaced).append(before)
    keep_only(changed.predecessors, kept)
    remember(changed, [(before, proven[before.name]) for before in replaced])
    return changed


def _mark(
    apps: Iterable[control_pb2.ApplicationSpec],
    ran: Mapping[DeploymentKey, str],
    proven: Mapping[DeploymentKey, tuple[str, str]],
) -> None:
    for app in apps:
        for spec in app.deployments:
            key = DeploymentKey(app.name, spec.name)
            spec.has_run |= ran.get(key) == spec.version
            spec.is_proven |= proven.get(key) == (spec.version, config_version(spec.options))


def replaced_at_once(
    before: control_pb2.ApplicationSpec | None, earlier: control_pb2.ApplicationSpec | None
) -> control_pb2.ApplicationSpec | None:
    """The last generation of which an application takes the place without one that is kept."""
    return before if before is not None and is_proven(before) else earlier


def remember(
    state: control_pb2.DesiredState, replaced: Iterable[tuple[control_pb2.ApplicationSpec, control_pb2.ApplicationSpec]]
) -> None:
    """Keep generations that were replaced for good, each by the wanted one, unless they never proved themselves."""
    new = {before.name: before for before, wanted in replaced if is_proven(before) and _differ(before, wanted)}
    if new:
        kept = [app for app in state.proven_before if app.name not in new]
        keep_only(state.proven_before, [*kept, *new.values()])


def rollback_target(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec | None:
    """The proven generation before the wanted one: the one that is kept, or else the one that was replaced last."""
    kept = predecessor_of(state, name)
    if kept is not None and is_proven(kept):
        return kept
    return next((app for app in state.proven_before if app.name == name), None)


def is_proven(app: control_pb2.ApplicationSpec) -> bool:
    """All its deployments: their replicas served at once, for `min_ready_s` each."""
    return all(spec.is_proven for spec in app.deployments)


def predecessor_of(state: control_pb2.DesiredState, name: str) -> control_pb2.ApplicationSpec | None:
    """The version before of that application, while it is kept."""
    return next((app for app in state.predecessors if app.name == name), None)


def _differ(one: control_pb2.ApplicationSpec, other: control_pb2.ApplicationSpec) -> bool:
    """In their versions, or in what changes without another version."""
    versions, others = ({spec.name: spec.version for spec in app.deployments} for app in (one, other))
    states = [control_pb2.DesiredState(applications=[each]) for each in (one, other)]
    return versions != others or any(changes_by_application(*states).values())


def _left_behind(before: control_pb2.ApplicationSpec, after: control_pb2.ApplicationSpec) -> set[str]:
    """Deployments that only the predecessor has: calls may be on their way to them."""
    return {spec.name for spec in before.deployments} - {spec.name for spec in after.deployments}
