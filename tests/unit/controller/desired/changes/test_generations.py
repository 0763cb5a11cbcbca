"""mesh.controller.desired.changes.generations: the version before is kept until the wanted one is proven."""

from mesh.controller.desired.changes.desired_change import shutting_down, without_application
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.desired_state import read_desired
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, with_application


def deployed(state: control_pb2.DesiredState, version: str, name: str = "Model") -> control_pb2.DesiredState:
    app = application(version=version)
    app.ingress = app.deployments[0].name = name
    return with_application(state, app, 0.0)


def proven(state: control_pb2.DesiredState, succeeded: bool = False) -> control_pb2.DesiredState:
    """The replicas of all wanted deployments have come up."""
    targets = read_desired(state).deployments.values()
    ran = {each.key: each.version for each in targets}
    full = {each.key: (each.version, each.config_version) for each in targets}
    return with_proofs(state, Proofs(ran, full, frozenset({"app"}) if succeeded else frozenset()))


def ran(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """One replica of each has come up."""
    return with_proofs(state, Proofs({each.key: each.version for each in read_desired(state).deployments.values()}))


def before(state: control_pb2.DesiredState) -> list[str]:
    return [spec.version for app in state.predecessors for spec in app.deployments]


EMPTY = control_pb2.DesiredState()
V1 = proven(deployed(EMPTY, "v1"))


def test_the_last_proven_version_is_kept_until_another_one_is_proven() -> None:
    failing = deployed(deployed(V1, "v2"), "v3")
    assert before(failing) == ["v1"]
    assert before(ran(failing)) == ["v1"]
    assert before(proven(failing)) == []
    assert before(deployed(proven(failing), "v4")) == ["v3"]


def test_what_never_served_is_not_kept() -> None:
    assert before(deployed(deployed(EMPTY, "v1"), "v2")) == []
    assert before(deployed(ran(deployed(EMPTY, "v1")), "v2")) == ["v1"], "a part of its replicas served"


def test_deploying_again_what_is_there_keeps_its_proofs() -> None:
    again = deployed(V1, "v1")
    assert (again.applications[0].deployments[0].has_run, before(again)) == (True, [])
    back = deployed(deployed(V1, "v2"), "v1")
    assert (back.applications[0].deployments[0].is_proven, before(back)) == (True, [])


def test_another_configuration_of_a_version_that_has_run_has_to_be_proven() -> None:
    app = application(version="v1")
    app.deployments[0].options.user_config_json = "1"
    changed = with_application(V1, app, 0.0)
    (spec,) = changed.applications[0].deployments
    assert (spec.has_run, spec.is_proven, before(changed)) == (True, False, ["v1"])
    target = read_desired(changed).deployments[KEY]
    assert target.predecessor is not None
    assert not target.has_other_version_before


def test_a_proof_of_what_was_replaced_meanwhile_is_ignored() -> None:
    late = with_proofs(deployed(V1, "v2"), Proofs({KEY: "v1"}, {KEY: ("v1", "")}))
    (spec,) = late.applications[0].deployments
    assert (spec.has_run, spec.is_proven, before(late)) == (False, False, ["v1"])


def test_deployments_that_are_renamed_stay_a_while_after_the_new_ones_are_proven() -> None:
    """Calls may be on their way to them."""
    renamed = deployed(V1, "v2", name="New")
    desired = read_desired(renamed)
    assert (set(desired.deployments), set(desired.retained)) == ({DeploymentKey("app", "New")}, {KEY})
    assert not desired.is_succeeded("app")
    switched = proven(renamed)
    assert set(read_desired(switched).retained) == {KEY}
    assert read_desired(switched).is_succeeded("app")
    assert not read_desired(proven(switched, succeeded=True)).retained


def test_a_deleted_application_leaves_no_version_behind() -> None:
    update = deployed(V1, "v2")
    assert before(without_application(update, "app")) == []
    assert before(shutting_down(update)) == []


def test_the_version_before_never_has_more_replicas_than_it_had() -> None:
    bigger = with_application(V1, application(version="v2", num_replicas=9), 0.0)
    target = read_desired(bigger).deployments[KEY]
    assert target.predecessor is not None
    assert (target.num_replicas, target.predecessor.num_replicas) == (9, 2)
