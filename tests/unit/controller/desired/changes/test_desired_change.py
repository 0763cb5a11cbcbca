"""mesh.controller.desired.changes.desired_change: what the requests make of the desired state, and what they refuse."""

import grpc
import pytest

from mesh.controller.desired.autoscaled_numbers import with_numbers
from mesh.controller.desired.changes.desired_change import (
    ConfigSource,
    InvalidChangeError,
    Run,
    scaled,
    shutting_down,
    with_applications,
    with_pause,
    with_promoted,
    without_application,
)
from mesh.controller.desired.desired_state import read_desired
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, with_application

EMPTY = control_pb2.DesiredState()


def refusal(state: control_pb2.DesiredState, app: control_pb2.ApplicationSpec) -> InvalidChangeError:
    with pytest.raises(InvalidChangeError) as caught:
        with_application(state, app, 0.0)
    return caught.value


def test_deploying_replaces_the_application_of_that_name() -> None:
    state = with_application(EMPTY, application(version="v1"), 1.0)
    state = with_application(state, application("other"), 2.0)
    state = with_application(state, application(version="v2"), 3.0)
    assert {app.name: app.deployments[0].version for app in state.applications} == {"app": "v2", "other": "v1"}
    assert state.version == 3
    assert state.applications[-1].last_deployed_time_s == 3.0


def test_a_change_leaves_the_state_it_came_from_alone() -> None:
    state = with_application(EMPTY, application(), 0.0)
    without_application(state, "app")
    assert [app.name for app in state.applications] == ["app"]
    assert control_pb2.DesiredState() == EMPTY


def test_deleting_what_is_not_there_is_fine() -> None:
    """An unknown name changes nothing (item 76)."""
    assert not without_application(EMPTY, "missing").applications


def test_a_route_prefix_belongs_to_one_application() -> None:
    """The refusal names the owner (item 67)."""
    state = with_application(EMPTY, application(), 0.0)
    taken = application("other")
    taken.route_prefix = "/app"
    error = refusal(state, taken)
    assert error.code == grpc.StatusCode.ALREADY_EXISTS
    assert "'/app' belongs to application 'app'. Give 'other' another one, or none" in str(error)


def test_applications_without_route_do_not_clash() -> None:
    first, second = application("a"), application("b")
    first.route_prefix = second.route_prefix = ""
    assert len(with_application(with_application(EMPTY, first, 0.0), second, 0.0).applications) == 2


def test_nothing_is_deployed_while_shutting_down() -> None:
    assert refusal(shutting_down(EMPTY), application()).code == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda app: app.ClearField("name"), "no name"),
        (lambda app: setattr(app, "ingress", "Missing"), "'Missing' is not a deployment"),
        (lambda app: app.deployments.append(app.deployments[0]), "several deployments named 'Model'"),
        (lambda app: app.deployments[0].ClearField("version"), "no version"),
        (lambda app: app.deployments[0].ClearField("code"), "no code"),
    ],
)
def test_a_senseless_application_is_refused(spoil: object, complaint: str) -> None:
    app = application()
    spoil(app)  # type: ignore[operator]
    error = refusal(EMPTY, app)
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in str(error)


def names(state: control_pb2.DesiredState) -> dict[str, bool]:
    """The applications, and whether they came from a file."""
    return {app.name: app.deployer == control_pb2.DEPLOYER_FILE for app in state.applications}


def test_a_file_replaces_what_the_file_before_named_and_nothing_else() -> None:
    """Applications of programs stay (item 245)."""
    state = with_application(EMPTY, application("by_program"), 1.0)
    state = with_applications(state, [application("a"), application("b")], 2.0, ConfigSource("first"))
    assert names(state) == {"by_program": False, "a": True, "b": True}
    state = with_applications(state, [application("b"), application("c")], 3.0, ConfigSource("second"))
    assert names(state) == {"by_program": False, "b": True, "c": True}
    assert (state.config_file, state.version) == ("second", 3)


def test_a_file_owns_the_applications_of_its_name() -> None:
    """Those of other files stay unless it prunes; one that it names becomes its own."""

    def deploy(
        state: control_pb2.DesiredState, file: str, *apps: str, prunes: bool = False
    ) -> control_pb2.DesiredState:
        return with_applications(state, [application(app) for app in apps], 1.0, ConfigSource("", file, prunes))

    both = deploy(deploy(EMPTY, "a.yaml", "a1", "a2"), "b.yaml", "b1")
    assert list(names(both)) == ["a1", "a2", "b1"]
    assert list(names(deploy(both, "a.yaml", "a1"))) == ["b1", "a1"]
    taken = deploy(both, "b.yaml", "b1", "a2")
    assert list(names(deploy(taken, "a.yaml"))) == ["b1", "a2"]
    assert list(names(deploy(both, "b.yaml", "b1", prunes=True))) == ["b1"]


def test_a_file_that_has_nothing_in_common_with_the_last_one_of_its_name_deletes_nothing() -> None:
    """It may be that of another team; an empty one, or one that prunes, is not a slip of the finger (item 245)."""
    first = with_applications(EMPTY, [application("a"), application("b")], 1.0, ConfigSource("", "mesh.yaml", False))
    with pytest.raises(
        InvalidChangeError, match=r"mesh\.yaml has deployed a, b, .*none of them.*`mesh delete a`"
    ) as caught:
        with_applications(first, [application("c")], 2.0, ConfigSource("", "mesh.yaml", False))
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    canary = application("a", "v2")
    canary.traffic.percent = 10.0
    for file, apps, left in (
        ("mesh.yaml", [], []),
        ("mesh.yaml", [application("c"), application("b")], ["c", "b"]),
        ("mesh.yaml", [canary], ["a"]),
        ("other.yaml", [application("c")], ["a", "b", "c"]),
    ):
        assert list(names(with_applications(first, apps, 2.0, ConfigSource("", file, False)))) == left
    assert list(names(with_applications(first, [application("c")], 2.0, ConfigSource("", "mesh.yaml", True)))) == ["c"]


def test_several_applications_without_a_file_delete_nothing() -> None:
    """`run_many` deletes nothing and leaves the stored file (item 74)."""
    state = with_applications(EMPTY, [application("a")], 1.0, ConfigSource("file"))
    state = with_applications(state, [application("b"), application("c")], 2.0)
    assert names(state) == {"a": True, "b": False, "c": False}
    assert state.config_file == "file"


def test_a_program_takes_over_what_a_file_had_named() -> None:
    state = with_applications(EMPTY, [application("a")], 1.0, ConfigSource("first"))
    state = with_application(state, application("a"), 2.0)
    assert names(with_applications(state, [], 3.0, ConfigSource("empty"))) == {"a": False}


MINE, YOURS = Run("mine"), Run("yours")


def test_a_run_does_not_replace_what_something_else_deployed() -> None:
    """The refusal names the deployer and the way out (item 243)."""
    state = with_application(EMPTY, application("a"), 1.0)
    state = with_applications(state, [application("b")], 2.0, ConfigSource("file"))
    state = with_applications(state, [application("c")], 3.0, run=YOURS)
    for name, deployer in (("a", "a program"), ("b", "a configuration file"), ("c", "another `mesh run`")):
        with pytest.raises(InvalidChangeError, match=f"'{name}' .deployed by {deployer}.*--replace") as caught:
            with_applications(state, [application(name), application("new")], 4.0, run=MINE)
        assert caught.value.code == grpc.StatusCode.ALREADY_EXISTS
        taken = with_applications(state, [application(name)], 4.0, run=Run("mine", may_replace=True))
        assert taken.applications[-1].deployer == control_pb2.DEPLOYER_RUN


def test_a_run_may_repeat_its_request() -> None:
    state = with_applications(EMPTY, [application("a")], 1.0, run=MINE)
    assert len(with_applications(state, [application("a")], 1.0, run=MINE).applications) == 1


def test_a_run_deletes_only_what_it_deployed() -> None:
    """What was deployed again meanwhile stays (item 243)."""
    state = with_applications(EMPTY, [application("a"), application("b")], 1.0, run=MINE)
    state = with_applications(state, [application("b")], 2.0, ConfigSource("file"))
    for name in ("a", "b", "missing"):
        state = without_application(state, name, "mine")
    assert names(state) == {"b": True}
    assert not without_application(state, "b").applications


def test_applications_of_one_file_may_exchange_their_routes() -> None:
    first, second = application("a"), application("b")
    state = with_applications(EMPTY, [first, second], 1.0, ConfigSource("file"))
    first.route_prefix, second.route_prefix = second.route_prefix, first.route_prefix
    changed = with_applications(state, [first, second], 2.0, ConfigSource("file"))
    assert {app.name: app.route_prefix for app in changed.applications} == {"a": "/b", "b": "/a"}


def test_two_applications_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidChangeError, match="Two applications are named 'a'"):
        with_applications(EMPTY, [application("a"), application("a")], 1.0, ConfigSource("file"))


def numbers(state: control_pb2.DesiredState) -> dict[str, int]:
    return {app.name: app.deployments[0].options.num_replicas for app in state.applications}


def test_a_redeployment_keeps_what_autoscaling_has_decided() -> None:
    """A fixed number is what was deployed (item 234)."""
    scaled = application("scaled", num_replicas=1, autoscaling=AutoscalingConfig(max_replicas=9).to_message())
    state = with_application(with_application(EMPTY, scaled, 0.0), application("fixed"), 0.0)
    state = with_numbers(state, {DeploymentKey("scaled", "Model"): 7})
    assert numbers(state) == {"scaled": 7, "fixed": 2}
    state = with_application(with_application(state, scaled, 1.0), application("fixed", num_replicas=3), 1.0)
    assert numbers(state) == {"scaled": 7, "fixed": 3}


def test_scaling_changes_the_number_until_the_next_deploy() -> None:
    state = with_application(EMPTY, application(num_replicas=2), 1.0)
    more = scaled(state, KEY, 5)
    assert more.applications[0].deployments[0].options.num_replicas == 5
    again = with_application(more, application(num_replicas=2), 2.0)
    assert again.applications[0].deployments[0].options.num_replicas == 2


@pytest.mark.parametrize(
    ("key", "num_replicas", "complaint"),
    [
        (DeploymentKey("app", "Modle"), 2, "Its deployments: Model"),
        (DeploymentKey("ap", "Model"), 2, "no application 'ap'. There are: app, auto. Did you mean 'app'"),
        (KEY, 0, "at least one replica"),
        (DeploymentKey("auto", "Model"), 2, "auto/Model autoscales: .* min_replicas and max_replicas"),
    ],
)
def test_what_cannot_be_scaled_is_refused_with_the_way_out(
    key: DeploymentKey, num_replicas: int, complaint: str
) -> None:
    rules = control_pb2.AutoscalingOptions(min_replicas=1, max_replicas=9, target_ongoing_requests=2)
    state = with_application(EMPTY, application(), 1.0)
    state = with_application(state, application("auto", autoscaling=rules), 1.0)
    with pytest.raises(InvalidChangeError, match=complaint):
        scaled(state, key, num_replicas)


def test_an_unknown_application_is_neither_paused_nor_promoted() -> None:
    state = with_application(EMPTY, application(), 1.0)
    with pytest.raises(InvalidChangeError, match=r"^There is no application 'shop'. There are: app.$"):
        with_pause(state, "shop", "", is_paused=True)
    with pytest.raises(InvalidChangeError, match=r"^There is no application 'ap'. .* Did you mean 'app'\?$"):
        with_promoted(state, "ap", 2.0)
    with pytest.raises(InvalidChangeError, match=r"^There is no application 'app'. There are: none.$"):
        with_pause(EMPTY, "app", "Model", is_paused=True)
    with pytest.raises(InvalidChangeError, match=r"'app' has no deployment 'Modle'. Its deployments: Model.$"):
        with_pause(state, "app", "Modle", is_paused=True)


def test_a_file_may_ask_for_a_share_of_all_replicas() -> None:
    """The share holds for fixed numbers and bounds, until another file ends it (item 232)."""
    rules = AutoscalingConfig(min_replicas=4, max_replicas=10).to_message()
    apps = [application("fixed", num_replicas=5), application("scaled", autoscaling=rules)]
    half = with_applications(EMPTY, apps, 0.0, ConfigSource("file"), 50.0)
    wanted = read_desired(half)
    assert wanted.target_capacity == 50.0
    assert wanted.deployments[DeploymentKey("fixed", "Model")].num_replicas == 3
    scaling = wanted.deployments[DeploymentKey("scaled", "Model")].scaling
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    by_program = with_application(half, application("other", num_replicas=5), 0.0)
    assert read_desired(by_program).deployments[DeploymentKey("other", "Model")].num_replicas == 3
    assert read_desired(with_applications(by_program, apps, 0.0)).target_capacity == 50.0
    assert read_desired(with_applications(EMPTY, apps, 0.0, target_capacity=50.0)).target_capacity == 50.0
    whole = read_desired(with_applications(by_program, apps, 0.0, ConfigSource("file")))
    assert whole.target_capacity is None
    assert whole.deployments[DeploymentKey("fixed", "Model")].num_replicas == 5


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_runtime_environment_that_is_no_object_is_refused(text: str) -> None:
    """It would be read when replicas are placed, of this deployment and of all others."""
    app = application()
    app.deployments[0].options.actor.runtime_env_json = text
    refused = refusal(EMPTY, app)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "runtime environment of deployment 'Model' is not a JSON object" in str(refused)


def test_descriptors_above_the_limit_are_refused() -> None:
    """Every gateway would hold them."""
    app = application()
    app.descriptors = bytes(settings().payload.descriptors_max_bytes)
    state = with_application(EMPTY, app, 0.0)
    assert state.applications[0].descriptors == b""
    app.descriptors += b"."
    assert "MESH_DESCRIPTORS_MAX_BYTES" in str(refusal(EMPTY, app))
