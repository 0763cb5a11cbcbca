"""mesh.controller.desired.changes.deploy_history, and the way back: rolled_back of desired_change."""

import grpc
import pytest

from mesh.controller.desired.changes.deploy_history import deployed_at_s, recorded, records_of
from mesh.controller.desired.changes.desired_change import (
    ConfigSource,
    InvalidChangeError,
    rolled_back,
    scaled,
    shutting_down,
    undone,
    with_applications,
    without_application,
)
from mesh.controller.desired.changes.generations import Proofs, rollback_target, with_proofs
from mesh.controller.desired.desired_state import read_desired
from mesh.controller.store.desired_store import StateStore
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application
from tests.unit.controller.dict_kv import DictKeyValue

EMPTY = control_pb2.DesiredState()


def deployed(
    state: control_pb2.DesiredState, version: str, at_s: float = 0.0, config_file: ConfigSource | None = None
) -> control_pb2.DesiredState:
    app = application(version=f"{version}-0")
    return recorded(lambda state: with_applications(state, [app], at_s, config_file), at_s, "ann@host")(state)


def proven(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """The replicas of all wanted deployments have served together for long enough."""
    targets = read_desired(state).deployments.values()
    full = {each.key: (each.version, each.config_version) for each in targets}
    return with_proofs(state, Proofs({each.key: each.version for each in targets}, full, frozenset({"app"})))


def version(state: control_pb2.DesiredState) -> str:
    return state.applications[0].deployments[0].version.removesuffix("-0")


def before(state: control_pb2.DesiredState) -> str | None:
    target = rollback_target(state, "app")
    return target.deployments[0].version.removesuffix("-0") if target is not None else None


V1 = proven(deployed(EMPTY, "v1"))
V2 = proven(deployed(V1, "v2", at_s=2.0))


def test_each_deploy_that_changes_something_is_recorded() -> None:
    again = deployed(V2, "v2", at_s=3.0)
    newest, first = records_of(again, "app")
    assert (newest.unix_time_s, newest.author, newest.is_rollback) == (2.0, "ann@host", False)
    assert list(newest.lines) == ["app/Model: code or bound arguments (replicas are replaced)"]
    assert list(first.lines) == ["app: new"]


def test_applications_that_have_exchanged_their_routes_get_them_back_when_both_fail() -> None:
    """One that is left with the route of another one goes back without it."""

    def routed(state: control_pb2.DesiredState, version: str, **routes: str) -> control_pb2.DesiredState:
        apps = [application(name, version) for name in routes]
        for app in apps:
            app.route_prefix = routes[app.name]
        return with_applications(state, apps, 0.0)

    served = routed(EMPTY, "v1", one="/a", two="/b")
    for app in served.applications:
        app.deployments[0].has_run = app.deployments[0].is_proven = True
    exchanged = routed(served, "v2", one="/b", two="/a")
    back = undone(exchanged, {"one": "crashes", "two": "crashes", "three": "is gone"}, 1.0)
    assert {app.name: app.route_prefix for app in back.applications} == {"one": "/a", "two": "/b"}
    assert {app.rolled_back_because for app in back.applications} == {"crashes"}
    alone = undone(exchanged, {"one": "crashes"}, 1.0)
    assert {app.name: (app.route_prefix, app.rolled_back_because) for app in alone.applications} == {
        "one": ("", "crashes"),
        "two": ("/a", ""),
    }
    assert undone(alone, {"one": "again"}, 2.0) is alone


def test_the_way_back_is_dated_as_in_the_history() -> None:
    """That has the last change of a version, and no deploy that changed nothing."""
    again = deployed(V1, "v1", at_s=1.5)
    scaling = recorded(lambda state: scaled(state, KEY, 3), 1.6, "", is_scaling=True)(again)
    state = proven(deployed(scaling, "v2", at_s=2.0))
    target = rollback_target(state, "app")
    assert target is not None
    assert deployed_at_s(V2, V1.applications[0]) == 0.0
    assert target.last_deployed_time_s == 1.5
    assert deployed_at_s(state, target) == 1.6
    for each in state.history:
        each.revision = 0  # from a backup
    assert deployed_at_s(state, target) == 1.5


def test_the_history_is_bounded() -> None:
    state = EMPTY
    for number in range(30):
        state = deployed(state, f"v{number}", at_s=number)
    assert [each.unix_time_s for each in records_of(state, "app")] == [29.0 - n for n in range(10)]
    assert len(state.history) == 10


def test_long_changes_and_names_are_cut() -> None:
    app = application()
    for number in range(30):
        app.deployments.add().CopyFrom(app.deployments[0])
        app.deployments[-1].name = f"{number:02}" + "x" * 1000
    before_app = with_applications(EMPTY, [application()], 0.0)
    edit = recorded(lambda state: with_applications(state, [app], 1.0), 1.0, "a" * 9999)
    (record,) = records_of(edit(before_app), "app")
    assert (len(record.lines), record.lines[-1]) == (10, "and 21 more changes")
    assert max(len(line) for line in [*record.lines, record.author]) <= 200


def test_the_version_before_is_the_last_proven_one() -> None:
    assert before(V1) is None
    assert before(V2) == "v1"
    assert before(proven(deployed(V2, "v3"))) == "v2"


def test_versions_that_never_served_are_no_way_back() -> None:
    failing = deployed(deployed(V2, "v3"), "v4")
    assert before(failing) == "v2"
    back = rolled_back(failing, "app", 5.0)
    assert (version(back), before(back)) == ("v2", "v1")
    assert back.applications[0].deployments[0].is_proven, "it has served all the time"


def test_a_rollback_has_to_prove_itself_and_leads_forward_again() -> None:
    edit = recorded(lambda state: rolled_back(state, "app", 5.0), 5.0, "bob@host", is_rollback=True)
    back = edit(V2)
    assert version(back) == "v1"
    spec = back.applications[0].deployments[0]
    assert (spec.has_run, spec.is_proven) == (True, False)
    assert [each.deployments[0].version for each in back.predecessors] == ["v2-0"], "kept until v1 serves"
    assert (before(back), before(proven(back))) == ("v2", "v2")
    assert version(rolled_back(proven(back), "app", 6.0)) == "v2"
    (record, *_) = records_of(back, "app")
    assert (record.is_rollback, record.author, record.unix_time_s) == (True, "bob@host", 5.0)


def test_a_change_that_restarts_nothing_is_rolled_back_too() -> None:
    """Without a second generation: the new number of replicas is proven by those that serve."""
    app = application(version="v1-0", num_replicas=5)
    scaled = with_applications(V1, [app], 1.0)
    back = rolled_back(scaled, "app", 2.0)
    assert back.applications[0].deployments[0].options.num_replicas == 2


def test_deploying_again_what_is_there_does_not_move_the_way_back() -> None:
    assert before(deployed(V2, "v2")) == "v1"


def test_an_application_of_a_file_stays_one() -> None:
    state = proven(
        deployed(proven(deployed(EMPTY, "v1", config_file=ConfigSource("one"))), "v2", config_file=ConfigSource("two"))
    )
    back = rolled_back(state, "app", 5.0)
    assert (back.applications[0].deployer, back.config_file) == (control_pb2.DEPLOYER_FILE, "two")


def test_without_a_version_before_the_refusal_says_so() -> None:
    with pytest.raises(InvalidChangeError, match="no version to go back to") as refused:
        rolled_back(V1, "app", 5.0)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(InvalidChangeError, match="There is no application 'ap'"):
        rolled_back(V1, "ap", 5.0)


def test_the_code_of_the_version_before_stays_stored() -> None:
    kv = DictKeyValue()
    store = StateStore(kv)
    state = EMPTY
    for name in ("v1", "v2", "v3"):
        app = application(version=f"{name}-0")
        app.descriptors = name.encode()
        store.put_code(app)
        state = proven(with_applications(state, [app], 0.0))
        store.save(state)
    kept = [state.applications[0].deployments[0].code_key, state.proven_before[0].deployments[0].code_key]
    assert [kv.entries.get(key) for key in kept] == [b"code of v3-0", b"code of v2-0"]
    assert set(store.descriptor_sets(state).values()) == {b"v3", b"v2"}
    assert b"code of v1-0" not in kv.entries.values()


def test_what_is_remembered_goes_with_its_application() -> None:
    for gone in (
        without_application(V2, "app"),
        shutting_down(V2),
        with_applications(V2, [], 0.0, config_file=ConfigSource("")),
    ):
        kept = [each.name for each in gone.applications]
        assert [each.name for each in gone.proven_before] == kept
        assert {each.application for each in gone.history} == set(kept)
