"""mesh.controller.desired.changes.canaries: what changes of an application leave of its canary, and the reverse."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.desired_change import (
    ConfigSource,
    InvalidChangeError,
    Run,
    rolled_back,
    with_applications,
    with_promoted,
    without_application,
)
from mesh.controller.desired.changes.generations import Proofs, with_proofs
from mesh.controller.desired.desired_state import read_desired
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.unit.controller.builders import replica

EMPTY = control_pb2.DesiredState()


def shop(
    versions: Mapping[str, str], percent: float | None = None, prefix: str = "/", **options: Any
) -> control_pb2.ApplicationSpec:
    """With these versions by deployment, the first of which is the ingress; a canary with `percent`."""
    app = control_pb2.ApplicationSpec(name="shop", ingress=next(iter(versions)), route_prefix=prefix)
    for name, version in versions.items():
        spec = app.deployments.add(name=name, version=version, code=version.encode())
        spec.options.num_replicas = 10
        spec.options.MergeFrom(control_pb2.DeploymentOptions(**options))
    if percent is not None:
        app.traffic.percent = percent
    return app


def deployed(
    state: control_pb2.DesiredState, *apps: control_pb2.ApplicationSpec, **given: Any
) -> control_pb2.DesiredState:
    for app in apps:
        state = with_applications(state, [app], 0.0, **given)
    return state


def proven(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """All wanted replicas serve, and nothing calls those before any more."""
    targets = read_desired(state).deployments.values()
    full = {each.key: (each.version, each.config_version) for each in targets}
    return with_proofs(state, Proofs({each.key: each.version for each in targets}, full, frozenset({"shop"})))


def own(state: control_pb2.DesiredState) -> dict[str, tuple[str, int]]:
    """Version and number of what the canary has replicas of its own of."""
    return {key.name: (each.version, each.num_replicas) for key, each in read_desired(state).canaries.items()}


def wanted(state: control_pb2.DesiredState) -> dict[str, str]:
    return {spec.name: spec.version for app in state.applications for spec in app.deployments}


def test_what_a_canary_shares_stays_shared_when_the_application_is_updated() -> None:
    """It is promoted with that update too, and not with the version that the application had."""
    state = deployed(proven(deployed(EMPTY, shop({"A": "a1", "B": "b1"}))), shop({"A": "a2", "B": "b1"}, 10.0))
    state = deployed(state, shop({"A": "a1", "B": "b2"}))
    assert own(state) == {"A": ("a2", 1)}
    assert own(deployed(state, shop({"A": "a1", "B": "b3"}))) == {"A": ("a2", 1)}
    assert wanted(with_promoted(state, "shop", 0.0)) == {"A": "a2", "B": "b2"}


def test_the_history_tells_a_promotion_from_the_end_of_a_canary() -> None:
    state = deployed(proven(deployed(EMPTY, shop({"A": "a1", "B": "b1"}))), shop({"A": "a2", "B": "b1"}, 10.0))
    promotion = changes_by_application(state, with_promoted(state, "shop", 0.0))["shop"]
    end = changes_by_application(state, rolled_back(state, "shop", 0.0))["shop"]
    another = changes_by_application(state, deployed(state, shop({"C": "c1"})))["shop"]
    assert (promotion[0], end, another[0]) == ("shop: canary promoted", ["shop: canary ended"], "shop: canary ended")


def test_a_canary_keeps_what_its_application_drops_once_that_has_stopped() -> None:
    """Until then the replicas of the version before serve both."""
    state = deployed(proven(deployed(EMPTY, shop({"A": "a1", "B": "b1"}))), shop({"A": "a2", "B": "b1"}, 10.0))
    state = deployed(state, shop({"A": "a1"}))
    assert [key.name for key in read_desired(state).retained] == ["B"]
    assert own(state) == {"A": ("a2", 1)}
    assert own(proven(state)) == {"A": ("a2", 1), "B": ("b1", 1)}


def test_replicas_of_a_canary_are_not_those_beside_it() -> None:
    """Without a canary all replicas are the application's."""
    key, replicas = DeploymentKey("shop", "A"), [replica(version=each) for each in ("a1", "a2", "a1")]
    both = read_desired(deployed(proven(deployed(EMPTY, shop({"A": "a1"}))), shop({"A": "a2"}, 10.0)))
    assert [each.version for each in both.beside_canaries(key, replicas)] == ["a1", "a1"]
    assert [each.version for each in both.of_canary(key, replicas)] == ["a2"]
    alone = read_desired(deployed(EMPTY, shop({"A": "a1"})))
    assert alone.beside_canaries(key, replicas) == replicas


VERSIONS = st.fixed_dictionaries({"A": st.sampled_from(["a1", "a2", "a3"])}, optional={"B": st.sampled_from("bcd")})
CHANGES = st.one_of(
    st.tuples(VERSIONS, st.sampled_from([None, 10.0]), st.sampled_from(["1", "2"])),
    st.sampled_from(["prove", "promote"]),
)


@given(st.lists(CHANGES, max_size=8))
def test_replicas_of_one_version_have_one_owner(changes: list[Any]) -> None:
    """Whatever is deployed in whichever order: two would stop each other's replicas."""
    state = deployed(EMPTY, shop({"A": "a1", "B": "b"}))
    for change in changes:
        try:
            if change == "prove":
                state = proven(state)
            elif change == "promote":
                state = with_promoted(state, "shop", 0.0)
            else:
                state = deployed(state, shop(change[0], change[1], user_config_json=change[2]))
        except InvalidChangeError:
            continue
        desired = read_desired(state)
        for key, canary in desired.canaries.items():
            beside = desired.deployments.get(key) or desired.retained.get(key)
            assert beside is None or canary.version not in beside.versions
        assert all(each.ingress == state.applications[0].ingress for each in state.canaries)


def test_a_promotion_leaves_the_application_to_who_deployed_it() -> None:
    """The end of the `mesh run` that brought the canary deletes nothing then."""
    state = deployed(EMPTY, shop({"A": "a1"}), config_file=ConfigSource("text", "prod.yaml"))
    state = deployed(state, shop({"A": "a2"}, 10.0), run=Run("run-7"))
    state = with_promoted(state, "shop", 0.0)
    (app,) = without_application(state, "shop", "run-7").applications
    assert (app.deployments[0].version, app.run_id, app.config_name) == ("a2", "", "prod.yaml")
    assert app.deployer == control_pb2.DEPLOYER_FILE


def test_a_promotion_keeps_the_route_prefix_that_the_application_has_now() -> None:
    state = deployed(EMPTY, shop({"A": "a1"}), shop({"A": "a2"}, 10.0), shop({"A": "a1"}, prefix="/new"))
    other = control_pb2.ApplicationSpec()
    other.CopyFrom(shop({"X": "x1"}))
    other.name = "other"
    promoted = with_promoted(deployed(state, other), "shop", 0.0)
    assert {app.name: app.route_prefix for app in promoted.applications} == {"other": "/", "shop": "/new"}


def test_a_rollback_that_ends_a_canary_forgets_an_earlier_automatic_one() -> None:
    """Its wait would take that for its own failure."""
    state = deployed(EMPTY, shop({"A": "a1"}))
    state.applications[0].rolled_back_because = "constructor failed"
    state = rolled_back(deployed(state, shop({"A": "a3"}, 10.0)), "shop", 0.0)
    assert (state.applications[0].rolled_back_because, list(state.canaries)) == ("", [])


def test_another_ingress_of_the_application_ends_the_canary() -> None:
    """Clients could not reach it, and its promotion would bring the old ingress back."""
    state = deployed(EMPTY, shop({"A": "a1"}), shop({"A": "a2"}, 10.0), shop({"Z": "z1", "A": "a1"}))
    assert not state.canaries


def test_a_canary_has_no_replicas_of_what_an_earlier_one_has_brought() -> None:
    """Such a version has a mark, which what clients deploy does not have."""
    state = deployed(EMPTY, shop({"A": "a1", "B": "b1"}, user_config_json="1"))
    state = deployed(state, shop({"A": "a1", "B": "b1"}, 10.0, user_config_json="2"))
    state = proven(with_promoted(state, "shop", 0.0))
    state = deployed(state, shop({"A": "a1", "B": "b2"}, 10.0, user_config_json="2"))
    assert own(state) == {"B": ("b2", 1)}


def test_a_deploy_of_the_configuration_of_a_canary_ends_it() -> None:
    state = deployed(EMPTY, shop({"A": "a1"}, user_config_json="1"), shop({"A": "a1"}, 10.0, user_config_json="2"))
    assert own(state) == {"A": ("a1+config", 1)}
    state = deployed(state, shop({"A": "a1"}, user_config_json="2"))
    assert (wanted(state), list(state.canaries)) == ({"A": "a1"}, [])


def test_a_deployment_that_only_the_canary_has_and_that_autoscales_gets_replicas() -> None:
    canary = shop({"A": "a2", "N": "n1"}, 10.0)
    canary.deployments[1].options.ClearField("num_replicas")
    canary.deployments[1].options.autoscaling.min_replicas = 2
    canary.deployments[1].options.autoscaling.max_replicas = 5
    assert own(deployed(EMPTY, shop({"A": "a1"}), canary)) == {"A": ("a2", 1), "N": ("n1", 1)}


def test_a_run_replaces_the_canary_of_something_else_only_if_it_says_so() -> None:
    state = deployed(deployed(EMPTY, shop({"A": "a1"})), shop({"A": "a2"}, 10.0), run=Run("run-1"))
    other = shop({"A": "a3"}, 10.0)
    with pytest.raises(InvalidChangeError, match=r"a canary of 'shop' .*another `mesh run`.*add --replace"):
        deployed(state, other, run=Run("run-2"))
    for run in (Run("run-1"), Run("run-2", may_replace=True), None):
        assert own(deployed(state, other, run=run)) == {"A": ("a3", 1)}
