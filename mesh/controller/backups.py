"""Backups of the desired state: what is in one, and the change that restores it. Pure.

A backup has all generations of each application with their code, so that it needs nothing but the cluster: the wanted
one, the one before that is kept until it has proven itself, the one for a rollback, and the canary. A restored version
has to prove itself again. On an empty mesh an application that was being updated comes back as it was: both
generations, so that the one before serves where the new one fails. One that runs is updated as by a deploy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc

from mesh.cluster.keys import DESCRIPTORS_PREFIX
from mesh.controller.desired.changes.canaries import own_deployments
from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.deploy_history import recorded
from mesh.controller.desired.changes.desired_change import with_applications
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.serving_order import set_serving_order
from mesh.controller.desired.changes.state_edits import Edit
from mesh.controller.store.state_contents import all_generations, keys_of
from mesh.stored.schema_version import NewerSchemaError, migrated
from mesh.v1 import control_pb2


def backup_of(
    state: control_pb2.DesiredState, contents: Mapping[str, bytes], servicer_functions: bytes, unix_time_s: float
) -> control_pb2.MeshBackup:
    """Raises InvalidChangeError if code or descriptors are lost."""
    lost = sorted(set(_lost(state, contents)))
    if lost:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"The {', the '.join(lost)} is gone from the cluster's key-value store: deploy it again, then back up.",
        )
    backup = control_pb2.MeshBackup(
        state=state, contents=contents, servicer_functions=servicer_functions, unix_time_s=unix_time_s
    )
    del backup.state.applied_requests[:]
    backup.state.is_shutting_down = False
    return backup


def _lost(state: control_pb2.DesiredState, contents: Mapping[str, bytes]) -> Iterator[str]:
    """What a restoration would not find."""
    for app in all_generations(state):
        yield from (f"code of {app.name}/{spec.name}" for spec in app.deployments if spec.code_key not in contents)
        if app.descriptors_digest and DESCRIPTORS_PREFIX + app.descriptors_digest not in contents:
            yield f"set of gRPC descriptors of {app.name}"


@dataclass(frozen=True, slots=True)
class Restoration:
    """A backup that is about to be restored. `applications` carry their code until that is stored."""

    state: control_pb2.DesiredState
    unix_time_s: float
    may_replace: bool

    @property
    def applications(self) -> list[control_pb2.ApplicationSpec]:
        """The applications of all generations: the same objects as in the state."""
        return list(all_generations(self.state))

    def edit(self, present: control_pb2.DesiredState) -> control_pb2.DesiredState:
        """`present` with the applications of the backup; others stay. Raises InvalidChangeError."""
        running = {app.name for app in present.applications}
        changed = self._with_predecessors(present, running)
        wanted = [*self.state.applications, *self._canaries_beside(present)]
        changed = with_applications(changed, wanted, self.unix_time_s)
        self._check_replaced(present, changed, running)
        self._take_over(changed, running)
        set_serving_order(changed, present, self.state)
        return changed

    def recorded_edit(self, author: str) -> Edit:
        """`edit`, which also adds what it changes to the history."""
        edit = recorded(self.edit, self.unix_time_s, author)

        def edited(present: control_pb2.DesiredState) -> control_pb2.DesiredState:
            changed = edit(present)
            for record in changed.history:
                record.is_restore |= record.revision == changed.version
            return changed

        return edited

    def _with_predecessors(self, present: control_pb2.DesiredState, running: set[str]) -> control_pb2.DesiredState:
        """The versions before, as if they had been deployed, so that the wanted ones find them.

        Their routes may belong to other applications since, so they get them when they are there.
        """
        before = {app.name: app for app in self.state.predecessors if app.name not in running}
        if not before:
            return present
        changed = with_applications(present, [_without_route(app) for app in before.values()], self.unix_time_s)
        for app in changed.applications:
            known = before.get(app.name)
            if known is None:
                continue
            app.route_prefix = known.route_prefix
            proofs = {spec.name: spec for spec in known.deployments}
            for spec in app.deployments:
                proof = proofs[spec.name]
                spec.has_run, spec.is_proven, spec.was_proven = proof.has_run, proof.is_proven, proof.was_proven
        return changed

    def _canaries_beside(self, present: control_pb2.DesiredState) -> Iterator[control_pb2.ApplicationSpec]:
        """Without those that were promoted since: the restoration replaces their versions, which then serve until the
        wanted ones do, and a rollback goes back to them."""
        served = {
            (app.name, spec.name, spec.version)
            for app in (*present.applications, *present.predecessors)
            for spec in app.deployments
        }
        beside = {app.name: app for app in self.state.applications}
        for canary in self.state.canaries:
            own = own_deployments(beside[canary.name], canary) if canary.name in beside else {}
            if not any((canary.name, name, spec.version) in served for name, spec in own.items()):
                yield canary

    def _check_replaced(
        self, present: control_pb2.DesiredState, changed: control_pb2.DesiredState, running: set[str]
    ) -> None:
        lines = changes_by_application(present, changed)
        replaced = sorted(name for name in running if lines[name])
        if replaced and not self.may_replace:
            raise InvalidChangeError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"The mesh runs {', '.join(map(repr, replaced))} already, and not as in the backup. Nothing is changed."
                " `mesh restore --dry-run --replace` shows what would change; --replace changes it.",
            )

    def _take_over(self, changed: control_pb2.DesiredState, running: set[str]) -> None:
        """What a deploy would not bring: who deployed it, its numbers, pauses, history and the way back."""
        saved = {app.name: app for app in self.state.applications}
        for app in changed.applications:
            if app.name in saved:
                known = saved[app.name]
                # A `mesh run` of then has ended, and does not delete it any more.
                is_of_run = known.deployer == control_pb2.DEPLOYER_RUN
                app.deployer = control_pb2.DEPLOYER_PROGRAM if is_of_run else known.deployer
                app.config_name = known.config_name
                if app.name not in running:
                    _take_over_numbers(known, app)
        fresh = saved.keys() - running
        changed.proven_before.extend(app for app in self.state.proven_before if app.name in fresh)
        for record in (each for each in self.state.history if each.application in fresh):
            changed.history.add().CopyFrom(record)
            changed.history[-1].revision = 0
        if self.state.HasField("config_file") and (self.may_replace or not changed.HasField("config_file")):
            changed.config_file = self.state.config_file
        if not running and self.state.HasField("target_capacity"):
            changed.target_capacity = self.state.target_capacity


def _without_route(app: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    made = control_pb2.ApplicationSpec()
    made.CopyFrom(app)
    made.ClearField("route_prefix")
    return made


def _take_over_numbers(known: control_pb2.ApplicationSpec, app: control_pb2.ApplicationSpec) -> None:
    specs = {spec.name: spec for spec in known.deployments}
    for spec in app.deployments:
        spec.options.num_replicas = specs[spec.name].options.num_replicas
        spec.is_paused = specs[spec.name].is_paused


def restoration(request: control_pb2.RestoreRequest, unix_time_s: float) -> Restoration:
    """Raises InvalidChangeError for a backup of a newer mesh, or one that is not whole."""
    try:
        state = migrated(request.backup.state, "The backup")
    except NewerSchemaError as error:
        raise InvalidChangeError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error
    contents = request.backup.contents
    lost = sorted(keys_of(state) - contents.keys())
    if lost:
        raise InvalidChangeError(
            grpc.StatusCode.INVALID_ARGUMENT, f"The backup is not whole: {lost[0]} is missing. Use another copy."
        )
    for app in all_generations(state):
        app.revision = 0  # revisions of that mesh are not those of this one
        if app.descriptors_digest:
            app.descriptors = contents[DESCRIPTORS_PREFIX + app.descriptors_digest]
        for spec in app.deployments:
            spec.code = contents[spec.code_key]
            spec.ClearField("code_key")
    for app in (*state.applications, *state.canaries):
        app.ClearField("rolled_back_because")
        for spec in app.deployments:
            spec.has_run = spec.is_proven = spec.was_proven = False
    return Restoration(state, unix_time_s, request.may_replace)
