"""mesh.controller.change: what the requests make of the desired state, and what they refuse."""

import grpc
import pytest

from mesh.controller.change import Refused, shutting_down, with_application, without_application
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application

EMPTY = control_pb2.DesiredState()


def refusal(state: control_pb2.DesiredState, app: control_pb2.ApplicationSpec) -> Refused:
    with pytest.raises(Refused) as caught:
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
    """Item 76."""
    assert not without_application(EMPTY, "nobody").applications


def test_a_route_prefix_belongs_to_one_application() -> None:
    """Item 67."""
    state = with_application(EMPTY, application(), 0.0)
    taken = application("other")
    taken.route_prefix = "/app"
    error = refusal(state, taken)
    assert error.code == grpc.StatusCode.ALREADY_EXISTS
    assert "'/app' belongs to application 'app'" in str(error)


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
        (lambda app: setattr(app, "ingress", "Nobody"), "'Nobody' is no deployment"),
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
