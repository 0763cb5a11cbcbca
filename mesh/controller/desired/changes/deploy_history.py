"""The history of each application: who deployed it, when, and what changed. Pure.

It is stored with the desired state, bounded, and goes with its application.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.state_edits import Edit, keep_only
from mesh.v1 import control_pb2

RECORDS_MAX = 10
"""Per application."""
_LINES_MAX = 10
_LINE_MAX_CHARS = 200
_AUTHOR_MAX_CHARS = 100
_NO_REASONS: Mapping[str, str] = {}


def recorded(
    edit: Edit,
    unix_time_s: float,
    author: str,
    *,
    is_rollback: bool = False,
    is_scaling: bool = False,
    reasons: Mapping[str, str] = _NO_REASONS,
) -> Edit:
    """`edit`, which also adds what it changes to the history. Deploying again what is there changes nothing.

    An application that it changes has a new revision, except for numbers that an external scaler sets.
    `author`: "user@host", as the client says; may be empty. `reasons`: why the controller did it, by application.
    """

    def edited(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
        changed = edit(state)
        changes = changes_by_application(state, changed)
        _set_revisions(state, changed, changes, is_scaling=is_scaling)
        deployers = {app.name: app.deployer for app in changed.applications}
        revisions = {app.name: app.revision for app in changed.applications}
        for name, lines in changes.items():
            if (lines or name in reasons) and name in deployers:
                if is_scaling:
                    _forget_scaling(changed, name)
                changed.history.add(
                    application=name,
                    unix_time_s=unix_time_s,
                    author=author[:_AUTHOR_MAX_CHARS],
                    deployer=deployers[name],
                    is_rollback=is_rollback,
                    is_scaling=is_scaling,
                    rolled_back_because=reasons.get(name, "")[:_LINE_MAX_CHARS],
                    revision=revisions[name],
                    lines=_bounded(lines),
                )
        bound_history(changed)
        return changed

    return edited


def _set_revisions(
    before: control_pb2.DesiredState,
    after: control_pb2.DesiredState,
    changes: Mapping[str, Sequence[str]],
    *,
    is_scaling: bool,
) -> None:
    olds = {app.name: app for app in before.applications}
    for app in after.applications:
        old = olds.get(app.name)
        is_kept = old is not None and (not changes[app.name] or (is_scaling and _is_scaled_outside(old, app)))
        app.revision = old.revision if old is not None and is_kept else after.version


def _is_scaled_outside(old: control_pb2.ApplicationSpec, new: control_pb2.ApplicationSpec) -> bool:
    """An external scaler has changed numbers: deploys keep them, so they overwrite no one's change."""
    numbers = {spec.name: spec.options.num_replicas for spec in old.deployments}
    scaled = [spec for spec in new.deployments if numbers.get(spec.name) != spec.options.num_replicas]
    return all(spec.options.HasField("autoscaling") for spec in scaled)


def _forget_scaling(state: control_pb2.DesiredState, name: str) -> None:
    """A scaler that changes the number all day leaves the deploys in the history: its last change stands for all."""
    last = next(
        (number for number in range(len(state.history) - 1, -1, -1) if state.history[number].application == name), None
    )
    if last is not None and state.history[last].is_scaling:
        del state.history[last]


def bound_history(state: control_pb2.DesiredState) -> None:
    """Forget applications that are no longer there, and the oldest records of the others."""
    names = {app.name for app in state.applications}
    seen: Counter[str] = Counter()
    kept: list[control_pb2.DeployRecord] = []
    for record in reversed(state.history):
        seen[record.application] += 1
        if record.application in names and seen[record.application] <= RECORDS_MAX:
            kept.append(record)
    keep_only(state.history, reversed(kept))


def records_of(state: control_pb2.DesiredState, name: str) -> list[control_pb2.DeployRecord]:
    """Newest first."""
    return [record for record in reversed(state.history) if record.application == name]


def deployed_at_s(state: control_pb2.DesiredState, application: control_pb2.ApplicationSpec) -> float:
    """Since when a generation is as it is, as its history says: a later deploy that changed nothing is not in that."""
    of_revision = (
        record.unix_time_s
        for record in state.history
        if record.application == application.name and record.revision == application.revision != 0
    )
    return next(of_revision, application.last_deployed_time_s)


def _bounded(lines: Sequence[str]) -> list[str]:
    shown = [line[:_LINE_MAX_CHARS] for line in lines[:_LINES_MAX]]
    if len(lines) > _LINES_MAX:
        shown[-1] = f"and {len(lines) - _LINES_MAX + 1} more changes"
    return shown
