"""mesh.controller.desired.controller_faults: what the controller does wrong with one deployment stays with it."""

import pytest

from mesh.controller.desired.controller_faults import ControllerFaults, Problems, confined
from mesh.routing.snapshot import DeploymentKey
from tests.unit.controller.builders import KEY

OTHER = DeploymentKey("app", "Other")


def test_what_goes_wrong_is_noted_and_goes_no_further() -> None:
    problems: Problems = {}
    with confined(KEY, problems):
        raise ZeroDivisionError("never")
    with confined(OTHER, problems):
        pass
    assert [(key, str(error)) for key, error in problems.items()] == [(KEY, "never")]


def test_every_distinct_problem_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    faults = ControllerFaults()
    for text in ("one", "two", "one", "two"):
        faults.note("planning", {KEY: KeyError(text)})
    assert len(caplog.records) == 2


def test_what_is_no_longer_wanted_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """Deployed once more it is news again."""
    faults = ControllerFaults()
    faults.note("planning", {KEY: KeyError("one"), OTHER: KeyError("one")})
    faults.keep({OTHER})
    faults.note("planning", {KEY: KeyError("one"), OTHER: KeyError("one")})
    assert len(caplog.records) == 3


def test_users_read_the_problems_of_all_steps_until_they_are_over() -> None:
    faults = ControllerFaults()
    faults.note("planning", {KEY: KeyError("one")})
    faults.note("autoscaling", {KEY: ValueError("two"), OTHER: ValueError("three")})
    assert faults.texts()[KEY].splitlines() == [
        "The controller's planning of this deployment fails, other deployments go on: KeyError: 'one'",
        "The controller's autoscaling of this deployment fails, other deployments go on: ValueError: two",
    ]
    faults.note("autoscaling", {})
    assert set(faults.texts()) == {KEY}
