"""mesh.controller.desired.changes.gateway_generations: the options before others, and what is refused of a change."""

import grpc
import pytest

from mesh.controller.desired.changes.desired_change import shutting_down
from mesh.controller.desired.changes.gateway_generations import with_gateways, with_proven_gateways
from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.v1 import control_pb2

A, B, C = (control_pb2.GatewayOptions(http_port=port) for port in (8000, 8001, 8002))


def with_options(state: control_pb2.DesiredState, options: control_pb2.GatewayOptions) -> control_pb2.DesiredState:
    return with_gateways(state, options, state.gateways)


def numbers(state: control_pb2.DesiredState) -> tuple[int, int | None]:
    """Of the wanted options of gateways and of those before."""
    return state.gateways_revision, state.gateways_before.number if state.HasField("gateways_before") else None


def test_the_options_of_gateways_before_stay_until_others_have_proven_themselves() -> None:
    first = control_pb2.DesiredState(version=1, gateways=A)
    second = with_options(first, B)
    third = with_options(second, C)
    assert (numbers(first), numbers(second), numbers(third)) == ((0, None), (1, 0), (2, 0))
    assert third.gateways_before.options == A
    assert numbers(with_proven_gateways(third, 1)) == (2, 0), "of options that are not wanted any more"
    assert numbers(with_proven_gateways(third, 2)) == (2, None)


def test_going_back_to_the_options_before_needs_no_other_gateways() -> None:
    """Their number is used by no later options, since a gateway with them may still drain."""
    second = with_options(control_pb2.DesiredState(gateways=A), B)
    back = with_options(second, A)
    assert numbers(back) == (0, None)
    assert numbers(with_options(back, C)) == (2, 0)


def test_the_same_options_change_nothing() -> None:
    state = control_pb2.DesiredState(version=7, gateways=A)
    assert with_gateways(state, A, B) == state


def test_options_that_another_program_has_changed_meanwhile_are_not_overwritten() -> None:
    state = control_pb2.DesiredState(gateways=B)
    with pytest.raises(InvalidChangeError, match="Call again to change them") as refused:
        with_gateways(state, C, A)
    assert refused.value.code is grpc.StatusCode.ABORTED
    with pytest.raises(InvalidChangeError, match="shutting down"):
        with_gateways(shutting_down(state), C, B)
