"""mesh.controller.report.mesh_picture: one picture for many clients."""

import itertools

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.report.mesh_picture import MeshPicture, SharedPicture
from tests.unit.controller.builders import picture


def make() -> MeshPicture:
    return picture(Desired(), Observed(), {})


def test_a_picture_that_takes_long_to_make_is_shown_for_a_while() -> None:
    """So clients that wait take a small share of the controller's time, however many they are."""
    seconds = itertools.count(0.0, 0.5)
    shared = SharedPicture(make, lambda: next(seconds))
    first = shared.get()
    later = [shared.get() for _ in range(200)]
    assert later[0] is first
    assert 2 <= len({id(each) for each in later}) <= 10


def test_one_that_takes_no_time_is_always_new() -> None:
    shared = SharedPicture(make, lambda: 1.0)
    assert shared.get() is not shared.get()


def test_a_picture_that_is_forgotten_is_not_shown_again() -> None:
    seconds = itertools.count(0.0, 0.5)
    shared = SharedPicture(make, lambda: next(seconds))
    first = shared.get()
    shared.forget()
    assert shared.get() is not first
