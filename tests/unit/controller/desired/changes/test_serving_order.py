"""mesh.controller.desired.changes.serving_order: calls without a name stay with the application that was first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.routes import Route, read_routes
from mesh.controller.backups import backup_of, restoration
from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.desired_change import (
    ConfigSource,
    rolled_back,
    with_applications,
    with_promoted,
    without_application,
)
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.changes.serving_order import servers_by_method
from mesh.controller.desired.desired_state import read_desired
from mesh.controller.report.snapshots import build_routes
from mesh.controller.store.state_contents import keys_of
from mesh.stored.schema_version import migrated
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application

BUY, SELL = "/shop.Shop/Buy", "/shop.Shop/Sell"
EMPTY = control_pb2.DesiredState()


def app(name: str, *methods: str, version: str = "v1", ingress: str = "Model") -> control_pb2.ApplicationSpec:
    spec = application(name, version)
    spec.ingress = spec.deployments[0].name = ingress
    spec.deployments[0].grpc_methods.extend(control_pb2.GrpcMethod(full_name=each) for each in methods)
    return spec


def deployed(state: control_pb2.DesiredState, *apps: control_pb2.ApplicationSpec) -> control_pb2.DesiredState:
    return with_applications(state, apps, 0.0)


def proven(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """All that is wanted serves, and no version before is kept."""
    targets = read_desired(state).deployments.values()
    ran = {each.key: each.version for each in targets}
    full = {each.key: (each.version, each.config_version) for each in targets}
    return with_proofs(state, Proofs(ran, full, frozenset(each.name for each in state.applications)))


def reached(state: control_pb2.DesiredState, method: str = BUY) -> str:
    """The application that a call without a name reaches at every gateway; empty if none does."""
    found = read_routes(build_routes(read_desired(state))).find(None, method)
    return found.deployment.app if isinstance(found, Route) else ""


TWO = proven(deployed(proven(deployed(EMPTY, app("zoo", BUY))), app("art", BUY)))


def test_a_second_application_takes_no_call_from_the_first() -> None:
    """Whatever their names are (item 212)."""
    assert reached(TWO) == "zoo"
    assert servers_by_method(TWO) == {BUY: ["zoo", "art"]}


def test_an_update_of_either_changes_nothing() -> None:
    """Another version, another ingress, and nothing at all; a version before that is still kept included."""
    for name in ("zoo", "art"):
        for again in (app(name, BUY), app(name, BUY, SELL, version="v2"), app(name, BUY, version="v2", ingress="New")):
            updating = deployed(TWO, again)
            assert reached(updating) == reached(proven(updating)) == "zoo"


def test_the_next_takes_over_when_the_first_goes_and_keeps_it_when_that_is_back() -> None:
    gone = without_application(TWO, "zoo")
    assert reached(gone) == "art"
    assert reached(proven(deployed(gone, app("zoo", BUY)))) == "art"


def test_the_next_takes_over_once_the_first_no_longer_serves_the_method() -> None:
    """While its version before is kept it still does, and it is first again if the update is taken back."""
    updating = deployed(TWO, app("zoo", SELL, version="v2"))
    assert reached(proven(rolled_back(updating, "zoo", 1.0))) == "zoo"
    without = proven(updating)
    assert reached(without) == "art"
    assert reached(proven(rolled_back(without, "zoo", 1.0))) == "art"


def test_a_method_that_comes_with_an_update_is_behind_those_that_serve_it() -> None:
    """It counts when the method came, not the application."""
    later = proven(deployed(proven(deployed(TWO, app("old", SELL))), app("zoo", BUY, SELL, version="v2")))
    assert reached(later, SELL) == "old"


def test_of_one_file_the_application_that_it_names_first_is_first() -> None:
    """For good: with the order of the file turned around both keep their places."""
    file = ConfigSource("text")
    both = [app("zoo", BUY), app("art", BUY)]
    state = with_applications(EMPTY, both, 0.0, file)
    assert reached(state) == "zoo"
    assert reached(with_applications(state, both[::-1], 1.0, file)) == "zoo"
    assert reached(with_applications(EMPTY, both[::-1], 0.0, file)) == "art"


def test_an_application_that_a_file_gives_another_name_keeps_its_place() -> None:
    """In one step it goes and comes, with the same ingress and all its methods."""
    file = ConfigSource("text")

    def renamed(*apps: control_pb2.ApplicationSpec) -> str:
        return reached(with_applications(with_applications(EMPTY, pair, 0.0, file), apps, 1.0, file))

    pair = [app("zoo", BUY), app("art", BUY)]
    assert renamed(app("art", BUY), app("zoo2", BUY, SELL, version="v2")) == "zoo2"
    assert renamed(app("art2", BUY), app("zoo", BUY)) == "zoo"
    assert renamed(app("art2", BUY), app("zoo2", BUY)) == "art2", "of two that are alike, the first of the file"
    assert renamed(app("art", BUY), app("zoo2", BUY, ingress="Other")) == "art"
    assert renamed(app("art", BUY), app("zoo2", SELL)) == "art"


def test_in_two_steps_another_name_is_another_application() -> None:
    both = deployed(TWO, app("zoo2", BUY))
    assert reached(both) == "zoo"
    assert reached(without_application(both, "zoo")) == "art"


def test_a_canary_and_its_promotion_change_nothing() -> None:
    canary = app("zoo", BUY, SELL, version="v2")
    canary.traffic.percent = 10
    beside = deployed(TWO, canary)
    assert [each.name for each in beside.canaries] == ["zoo"]
    assert reached(beside) == reached(proven(with_promoted(beside, "zoo", 1.0))) == "zoo"
    canary = app("art", BUY, version="v2")
    canary.traffic.percent = 10
    assert reached(with_promoted(deployed(TWO, canary), "art", 1.0)) == "zoo"


def test_places_are_no_change_of_an_application() -> None:
    """Deploying again what is there changes nothing, and a version to go back to differs in more than its place."""
    again = deployed(TWO, app("zoo", BUY), app("art", BUY))
    assert not any(changes_by_application(TWO, again).values())
    back = deployed(deployed(without_application(TWO, "zoo"), app("zoo", BUY)), app("zoo", BUY))
    assert not back.proven_before
    assert changes_by_application(TWO, back)["zoo"] == []


def restored(saved: control_pb2.DesiredState, present: control_pb2.DesiredState) -> control_pb2.DesiredState:
    contents = dict.fromkeys(keys_of(saved), b"code")
    request = control_pb2.RestoreRequest(backup=backup_of(saved, contents, b"", 0.0), may_replace=True)
    return restoration(request, 5.0).edit(present)


def stored(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """With its code in the key-value store."""
    made = control_pb2.DesiredState()
    made.CopyFrom(state)
    for group in (made.applications, made.predecessors, made.proven_before, made.canaries):
        for each in group:
            for spec in each.deployments:
                spec.code_key = f"code/{each.name}-{spec.version}"
    return made


def test_a_backup_brings_the_order_with_it() -> None:
    """Also of an application that was being updated; what runs already is before all that comes back."""
    saved = stored(deployed(deployed(TWO, app("new", BUY)), app("art", BUY, version="v2")))
    assert saved.predecessors, "art is being updated"
    assert servers_by_method(restored(saved, EMPTY)) == {BUY: ["zoo", "art", "new"]}
    present = deployed(EMPTY, app("here", BUY))
    assert servers_by_method(restored(saved, present)) == {BUY: ["here", "zoo", "art", "new"]}
    other = deployed(EMPTY, app("new", BUY))
    assert servers_by_method(restored(saved, other)) == {BUY: ["new", "zoo", "art"]}


def without_places(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """As the version before, which knows no places, would have stored it."""
    made = control_pb2.DesiredState()
    made.CopyFrom(state)
    for each in (*made.applications, *made.predecessors):
        for spec in each.deployments:
            for method in spec.grpc_methods:
                method.ClearField("serving_order")
    return made


def test_a_state_of_an_earlier_version_is_put_in_the_order_of_the_first_deploys_that_it_knows() -> None:
    """And that is the same after each start of a controller, until something is deployed."""
    old = without_places(TWO)
    for name, times in {"zoo": [30.0, 500.0], "art": [20.0, 40.0]}.items():
        for unix_time_s in times:
            old.history.add(application=name, unix_time_s=unix_time_s)
    for each in old.applications:
        each.last_deployed_time_s = 400.0
    state = migrated(old, "The state")
    assert reached(state) == "art"
    assert migrated(state, "The state") == state == migrated(old, "The state")
    assert reached(deployed(state, app("zoo", BUY, version="v2"), app("new", BUY))) == "art"


def test_what_an_earlier_version_deployed_meanwhile_is_last() -> None:
    """A controller went back to the version before for a while: the places that are stored hold."""
    mixed = control_pb2.DesiredState()
    mixed.CopyFrom(TWO)
    mixed.applications.add().CopyFrom(app("new", BUY))
    mixed.applications[-1].last_deployed_time_s = -1.0
    assert servers_by_method(migrated(mixed, "The state")) == {BUY: ["zoo", "art", "new"]}


# ---- Any sequence of changes -----------------------------------------------------------------------------------------

NAMES, METHODS = "abc", (BUY, SELL)
SPECS = st.tuples(
    st.sampled_from(NAMES), st.sets(st.sampled_from(METHODS)), st.sampled_from(["v1", "v2"]), st.sampled_from("XY")
).map(lambda parts: app(parts[0], *sorted(parts[1]), version=f"{parts[2]}{len(parts[1])}", ingress=parts[3]))
Change = Callable[[control_pb2.DesiredState], control_pb2.DesiredState]


def deploy_of(apps: Sequence[control_pb2.ApplicationSpec]) -> Change:
    return lambda state: deployed(state, *apps)


def delete_of(name: str) -> Change:
    return lambda state: without_application(state, name)


def stored_and_read(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """Another controller."""
    return migrated(control_pb2.DesiredState.FromString(state.SerializeToString()), "The state")


CHANGES = st.one_of(
    st.lists(SPECS, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(deploy_of),
    st.sampled_from(NAMES).map(delete_of),
    st.just(proven),
    st.just(stored_and_read),
)


def serving(state: control_pb2.DesiredState, method: str) -> list[str]:
    """The applications of which the wanted version or the one before has the method, in the order of the state."""
    names = [
        each.name
        for each in (*state.applications, *state.predecessors)
        if any(method == known.full_name for spec in each.deployments for known in spec.grpc_methods)
    ]
    return list(dict.fromkeys(names))


@given(st.lists(CHANGES, max_size=12))
def test_no_change_puts_an_application_before_one_that_served_the_method_already(changes: list[Change]) -> None:
    """The order is a queue: new ones join at its end, and nothing but leaving moves one of them."""
    state, queues = EMPTY, {method: list[str]() for method in METHODS}
    for change in changes:
        state = change(state)
        for method, queue in queues.items():
            now = serving(state, method)
            queue[:] = [name for name in queue if name in now]
            queue += [name for name in now if name not in queue]
            wanted = servers_by_method(state).get(method, [])
            assert wanted == [name for name in queue if name in wanted]
