"""mesh.controller.report.mesh_picture: one picture for many clients."""

import itertools
from dataclasses import replace

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Failures, Observed
from mesh.controller.report.mesh_picture import MeshPicture, SharedPicture
from mesh.controller.report.status_judge import StatusJudge
from mesh.controller.report.status_report import build_status
from mesh.status import DeploymentStatus
from tests.unit.controller.builders import KEY, desired, observed, picture, replica, target


def make() -> MeshPicture:
    return picture(Desired(), Observed(), {})


def taking(seconds: float) -> SharedPicture:
    """On a clock that goes on by half a second with each look, and each picture takes this long to make."""
    clock, stopwatch = itertools.count(0.0, 0.5), itertools.count(0.0, seconds)
    return SharedPicture(make, lambda: next(clock), lambda: next(stopwatch))


def test_a_picture_that_takes_long_to_make_is_shown_for_a_while() -> None:
    """So clients that wait take a small share of the controller's time, however many they are."""
    shared = taking(0.5)
    first = shared.get()
    later = [shared.get() for _ in range(200)]
    assert later[0] is first
    assert 2 <= len({id(each) for each in later}) <= 10


def test_one_that_takes_little_time_is_always_new() -> None:
    shared = taking(0.001)
    assert shared.get() is not shared.get()


def test_a_picture_that_is_forgotten_is_not_shown_again() -> None:
    shared = taking(0.5)
    first = shared.get()
    shared.forget()
    assert shared.get() is not first


def test_a_picture_keeps_its_verdicts_when_a_failed_deployment_is_deployed_again() -> None:
    """It may be shown for a while after."""
    wanted, seen, judge = desired(target(1)), observed(replica(unhealthy="broken")), StatusJudge()
    judge.update(wanted, replace(seen, replica_failures={(KEY, "v2"): Failures(version="v2", count=99)}), 0.0)
    shown = picture(wanted, seen, judge.verdicts)
    assert shown.verdicts[KEY].status == DeploymentStatus.DEPLOY_FAILED
    judge.restart(KEY)
    assert KEY not in judge.verdicts
    assert build_status(shown).applications[0].deployments[0].status == DeploymentStatus.DEPLOY_FAILED
