"""Changes of the desired state that users ask for, such as deploys, and what is refused of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import grpc

from mesh.controller.desired.changes.application_checks import check_applications
from mesh.controller.desired.changes.canaries import (
    REASON_MAX_CHARS,
    canary_of,
    keep_versions,
    promoted,
    set_canaries,
    without_canary,
)
from mesh.controller.desired.changes.deploy_history import bound_history
from mesh.controller.desired.changes.generations import (
    is_proven,
    remember,
    replaced_at_once,
    rollback_target,
    succeed,
    take_over_proofs,
)
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.controller.desired.changes.replicas_at_deploy import replicas_at_deploy
from mesh.controller.desired.changes.serving_order import set_serving_order
from mesh.controller.desired.changes.state_edits import keep_only, next_version, present_application
from mesh.controller.store.descriptor_sets import digest_of
from mesh.options.option_checks import REPLICAS_MAX
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2

_DEPLOYERS = {
    control_pb2.DEPLOYER_PROGRAM: "a program or `mesh deploy MODULE:APP`",
    control_pb2.DEPLOYER_FILE: "a configuration file",
    control_pb2.DEPLOYER_RUN: "another `mesh run`",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A `mesh run`, which deletes at its end what it deployed."""

    run_id: str
    may_replace: bool = False
    """It may replace applications that something else deployed."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A configuration file that is deployed."""

    text: str
    name: str = ""
    """Without directories. It owns the applications that were deployed by a file of this name."""
    prunes: bool = True
    """Applications of files with other names are deleted too."""

    def owns(self, app: control_pb2.ApplicationSpec) -> bool:
        """The application is to be deleted unless the file names it."""
        is_own = self.prunes or app.config_name in ("", self.name)
        return app.deployer == control_pb2.DEPLOYER_FILE and is_own


def with_applications(
    state: control_pb2.DesiredState,
    applications: Sequence[control_pb2.ApplicationSpec],
    unix_time_s: float,
    config_file: ConfigSource | None = None,
    target_capacity: float | None = None,
    run: Run | None = None,
) -> control_pb2.DesiredState:
    """The state with each of `applications` in the place of the one of its name.

    A `run` must not replace those of others unless it says so.
    With `config_file`, which names all of them, the others that it owns go, unless it names none of those; those that
    programs deployed stay. `target_capacity` then holds for all, None for no such restriction; without a file None
    leaves it as it is.
    Those with traffic options become canaries of the applications of their names, which stay.
    """
    canaries = [app for app in applications if app.HasField("traffic")]
    applications = [app for app in applications if not app.HasField("traffic")]
    if run is not None:
        _check_replaced(state, {app.name for app in applications}, {app.name for app in canaries}, run)
    changed = _without(state, {app.name for app in applications})
    if config_file is not None:
        stay = {app.name for app in canaries}
        owned = {app.name for app in state.applications if config_file.owns(app)}
        _check_same_file(config_file, owned, {*stay, *(app.name for app in applications)})
        changed = _without(changed, owned - stay)
        changed.config_file = config_file.text
        changed.ClearField("target_capacity")
    if target_capacity is not None:
        changed.target_capacity = target_capacity
    changed.version = state.version + 1
    check_applications(changed, applications)
    _add(changed, [_stored(each, unix_time_s, config_file, run) for each in applications], state)
    set_canaries(changed, [_stored(each, unix_time_s, config_file, run) for each in canaries], state)
    for name in {app.name for app in canaries}:
        _forget_rollback(changed, name)
        earlier, canary = canary_of(state, name), canary_of(changed, name)
        if earlier is not None and canary is not None:
            take_over_proofs(earlier, canary)
    _forget_deleted(changed)
    set_serving_order(changed, state)
    return changed


def _add(
    changed: control_pb2.DesiredState,
    applications: Iterable[control_pb2.ApplicationSpec],
    state: control_pb2.DesiredState,
) -> None:
    """Let them take the place of those of their names in `state`, which `changed` has no more."""
    befores = {app.name: app for app in state.applications}
    earliers = {app.name: app for app in state.predecessors}
    replaced_for_good = []
    for application in applications:
        added = changed.applications.add()
        added.CopyFrom(application)
        before, earlier = befores.get(added.name), earliers.get(added.name)
        known = {spec.name: spec for spec in before.deployments} if before is not None else {}
        keep_versions(known.values(), added.deployments)
        _keep_numbers(known.values(), added.deployments)
        for spec in added.deployments:
            spec.is_paused = spec.name in known and known[spec.name].is_paused
        predecessor = succeed(before, earlier, added)
        if predecessor is not None:
            changed.predecessors.add().CopyFrom(predecessor)
        elif (replaced := replaced_at_once(before, earlier)) is not None:
            replaced_for_good.append((replaced, added))
    remember(changed, replaced_for_good)


def _stored(
    application: control_pb2.ApplicationSpec, unix_time_s: float, config_file: ConfigSource | None, run: Run | None
) -> control_pb2.ApplicationSpec:
    """With what the controller says of it."""
    stored = control_pb2.ApplicationSpec()
    stored.CopyFrom(application)
    stored.descriptors_digest = digest_of(application)
    stored.ClearField("descriptors")
    stored.last_deployed_time_s = unix_time_s
    stored.deployer = _deployer(config_file, run)
    stored.run_id = run.run_id if run else ""
    stored.config_name = config_file.name if config_file else ""
    stored.rolled_back_because = ""
    return stored


def with_promoted(state: control_pb2.DesiredState, name: str, unix_time_s: float) -> control_pb2.DesiredState:
    """The state in which the canary of that application is deployed in its place. Who deployed that stays."""
    present, canary = present_application(state, name), canary_of(state, name)
    if canary is None:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Application {name!r} has no canary. Deploy one with `mesh deploy ... --traffic-percent 10`.",
        )
    changed = with_applications(without_canary(state, name), [promoted(canary, present.route_prefix)], unix_time_s)
    _keep_deployers(changed, [present])
    return changed


def rolled_back(state: control_pb2.DesiredState, name: str, unix_time_s: float) -> control_pb2.DesiredState:
    """The state without the canary of that application; if it has none, with the proven version before in its place.

    Who deployed it stays. That version has to prove itself again; until then the present one is kept if it was proven.
    """
    present = present_application(state, name)
    if canary_of(state, name) is not None:
        changed = without_canary(state, name)
        _forget_rollback(changed, name)
        return changed
    return _gone_back(state, present, unix_time_s)


def _gone_back(
    state: control_pb2.DesiredState, present: control_pb2.ApplicationSpec, unix_time_s: float
) -> control_pb2.DesiredState:
    target = rollback_target(state, present.name)
    if target is None:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Application {present.name!r} has no version to go back to: none that has served was replaced since its "
            f"first deploy. See `mesh history {present.name}`.",
        )
    changed = with_applications(state, [_to_prove_again(target)], unix_time_s)
    _keep_deployers(changed, [present])
    return changed


def _to_prove_again(target: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    restored = control_pb2.ApplicationSpec()
    restored.CopyFrom(target)
    for spec in restored.deployments:
        spec.is_proven, spec.was_proven = False, True
    return restored


def undone(state: control_pb2.DesiredState, reasons: Mapping[str, str], unix_time_s: float) -> control_pb2.DesiredState:
    """The state with the version before of applications whose update failed, by name, and why it did.

    One that has changed since, so that no version before is kept for it, stays as it is. No one is there to correct a
    change that is refused, so one whose route belongs to another application since goes back without it.
    """
    failed = reasons.keys() & {app.name for app in state.applications}
    befores = [app for app in state.predecessors if app.name in failed and is_proven(app)]
    if not befores:
        return state
    restored = [_to_prove_again(app) for app in befores]
    names = {app.name for app in befores}
    taken = {app.route_prefix for app in state.applications if app.name not in names}
    for app in restored:
        if app.route_prefix in taken:
            app.route_prefix = ""
        taken.add(app.route_prefix)
    changed = with_applications(state, restored, unix_time_s)
    for app in changed.applications:
        if app.name in names:
            app.rolled_back_because = reasons[app.name][:REASON_MAX_CHARS]
    # As they were deployed: the `mesh run` that failed must not delete them at its end.
    _keep_deployers(changed, befores)
    return changed


def with_pause(
    state: control_pb2.DesiredState, application: str, deployment: str, *, is_paused: bool
) -> control_pb2.DesiredState:
    """The state in which rollouts of a deployment stand still, or go on; of all of the application if it is empty."""
    changed = next_version(state)
    specs = present_application(changed, application).deployments
    chosen = [spec for spec in specs if deployment in ("", spec.name)]
    if not chosen:
        raise _no_deployment(DeploymentKey(application, deployment), [spec.name for spec in specs])
    for spec in chosen:
        spec.is_paused = is_paused
    _forget_rollback(changed, application)
    return changed


def scaled(
    state: control_pb2.DesiredState, key: DeploymentKey, num_replicas: int, change: int = 0
) -> control_pb2.DesiredState:
    """The state with another number of replicas of a deployment that does not follow its load.

    Not 0, `change` counts instead: this many more than there are, or fewer. The versions that it may go back to get the
    number too, so that an update that is undone takes none of it away.
    """
    changed = next_version(state)
    names = [spec.name for spec in present_application(state, key.app).deployments]
    if key.name not in names:
        raise _no_deployment(key, names)
    (spec,) = _specs_of(key, changed.applications)
    number = spec.options.num_replicas + change if change else num_replicas
    spec.options.num_replicas = _scaled_number(key, spec.options, number)
    for before in _specs_of(key, (*changed.predecessors, *changed.proven_before)):
        if not before.options.HasField("autoscaling"):
            before.options.num_replicas = spec.options.num_replicas
    _forget_rollback(changed, key.app)
    return changed


def _specs_of(
    key: DeploymentKey, applications: Iterable[control_pb2.ApplicationSpec]
) -> list[control_pb2.DeploymentSpec]:
    return [spec for app in applications if app.name == key.app for spec in app.deployments if spec.name == key.name]


def _scaled_number(key: DeploymentKey, options: control_pb2.DeploymentOptions, num_replicas: int) -> int:
    """The number that a Scale request sets. An external scaler need not know the bounds."""
    rules = options.autoscaling
    if options.HasField("autoscaling") and not rules.is_external:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Deployment {key} autoscales: its load would change the number again. Deploy it with other min_replicas"
            " and max_replicas, or with external_scaler in its autoscaling_config.",
        )
    if options.HasField("autoscaling"):
        return min(max(num_replicas, rules.min_replicas), rules.max_replicas)
    if not 1 <= num_replicas <= REPLICAS_MAX:
        raise InvalidChangeError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"A deployment has at least one replica, and at most {REPLICAS_MAX}: {num_replicas} is not possible. Delete"
            " the application to stop it.",
        )
    return num_replicas


def without_application(state: control_pb2.DesiredState, name: str, run_id: str = "") -> control_pb2.DesiredState:
    """The state without that application; a name that is not there changes nothing.

    With `run_id` an application that something else deployed stays.
    """
    changed = _without(
        state, {app.name for app in state.applications if app.name == name and run_id in ("", app.run_id)}
    )
    canary = canary_of(changed, name)
    if canary is not None and run_id and canary.run_id == run_id:
        changed = without_canary(changed, name)
    _forget_deleted(changed)
    return changed


def shutting_down(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """The state in which the mesh ends: without applications."""
    changed = next_version(state)
    del changed.applications[:]
    del changed.predecessors[:]
    _forget_deleted(changed)
    changed.is_shutting_down = True
    changed.ClearField("config_file")
    return changed


def _check_same_file(config_file: ConfigSource, owned: Set[str], named: Set[str]) -> None:
    """Raises InvalidChangeError for a file that names others only than a file of its name has deployed."""
    if config_file.prunes or not owned or not named or owned & named:
        return
    raise InvalidChangeError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"A file {config_file.name} has deployed {', '.join(sorted(owned))}, and this one has none of them: it may be"
        " another file of the same name. Nothing is changed. Give this one another name; to replace them, delete them"
        f" first with `mesh delete {min(owned)}`, or say --prune, which deletes the applications of all other files.",
    )


def _deployer(config_file: ConfigSource | None, run: Run | None) -> control_pb2.Deployer:
    if run is not None:
        return control_pb2.DEPLOYER_RUN
    return control_pb2.DEPLOYER_PROGRAM if config_file is None else control_pb2.DEPLOYER_FILE


def _check_replaced(state: control_pb2.DesiredState, names: Set[str], canaries: Set[str], run: Run) -> None:
    """Raises InvalidChangeError if the run would replace applications or canaries of others, and must not."""
    replaced = (
        (names, state.applications, "", "delete it", "choose another --name"),
        (canaries, state.canaries, "a canary of ", "end it", "end it with `mesh rollback`"),
    )
    for chosen, present, what, ending, advice in replaced:
        others = [app for app in present if app.name in chosen and app.run_id != run.run_id]
        if others and not run.may_replace:
            there = ", ".join(f"{what}{app.name!r} (deployed by {_DEPLOYERS[app.deployer]})" for app in others)
            raise InvalidChangeError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"The mesh runs {there} already. `mesh run` would replace it now and {ending} at its end: "
                f"{advice}, or add --replace.",
            )


def _keep_deployers(changed: control_pb2.DesiredState, known: Iterable[control_pb2.ApplicationSpec]) -> None:
    """Record those of `known` for the applications of their names: the change itself is not a deploy."""
    by_name = {app.name: app for app in known}
    for app in changed.applications:
        if before := by_name.get(app.name):
            app.deployer, app.run_id, app.config_name = before.deployer, before.run_id, before.config_name


def _keep_numbers(before: Iterable[control_pb2.DeploymentSpec], after: Iterable[control_pb2.DeploymentSpec]) -> None:
    """Deployments that autoscale go on with the replicas they have, where their options allow it."""
    options_before = {spec.name: spec.options for spec in before}
    for spec in after:
        spec.options.num_replicas = replicas_at_deploy(options_before.get(spec.name), spec.options)


def _no_deployment(key: DeploymentKey, names: Iterable[str]) -> InvalidChangeError:
    known = ", ".join(sorted(names))
    return InvalidChangeError(
        grpc.StatusCode.NOT_FOUND, f"Application {key.app!r} has no deployment {key.name!r}. Its deployments: {known}."
    )


def _forget_rollback(state: control_pb2.DesiredState, name: str) -> None:
    """Someone has changed the application since: what happened before is in its history."""
    for app in state.applications:
        if app.name == name:
            app.rolled_back_because = ""


def _without(state: control_pb2.DesiredState, names: Iterable[str]) -> control_pb2.DesiredState:
    changed = next_version(state)
    gone = set(names)
    for apps, old in ((changed.applications, state.applications), (changed.predecessors, state.predecessors)):
        keep_only(apps, (app for app in old if app.name not in gone))
    return changed


def _forget_deleted(state: control_pb2.DesiredState) -> None:
    """The history of an application, and its version before, go with it."""
    names = {app.name for app in state.applications}
    keep_only(state.canaries, (app for app in state.canaries if app.name in names))
    keep_only(state.proven_before, (app for app in state.proven_before if app.name in names))
    bound_history(state)
