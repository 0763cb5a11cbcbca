"""mesh.client.program_end: a program that serves is drained by SIGTERM, and one that ends says what ends with it."""

import logging
import signal
from collections.abc import Callable

import pytest

from mesh.client import program_end
from mesh.client.program_end import ProgramEnd
from mesh.client.ray_guard import RAY_HAS_ENDED
from mesh.cluster import ray_watch
from tests.unit.fakes.mesh_fakes import FakeCluster


class Program:
    """A program that runs `shop`. `steps` happen, one by one, while it waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_owner: bool) -> None:
        self.shutdowns = 0
        self.steps: list[Callable[[], object]] = []
        self.has_ray_ended = False
        self.statuses: list[int] = []
        self.end = ProgramEnd(self._shutdown)
        cluster = FakeCluster(is_owned=is_owner)
        cluster.attach(monkeypatch)
        monkeypatch.setattr(program_end.atexit, "register", lambda function: function)
        monkeypatch.setattr(program_end.time, "sleep", lambda duration_s: self.steps.pop(0)())
        monkeypatch.setattr(program_end, "leave", self.statuses.append)
        monkeypatch.setattr(ray_watch, "RayWatch", lambda: self)

    def has_ended(self, *, needs_gcs: bool) -> bool:
        return self.has_ray_ended

    def serve(self) -> None:
        self.end.serve(lambda: self.end.deployed("shop"))

    def _shutdown(self) -> None:
        # A second signal does not interrupt it.
        signal.raise_signal(signal.SIGTERM)
        self.shutdowns += 1


@pytest.fixture(params=[True, False], ids=["own Ray", "other Ray"])
def is_owner(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, is_owner: bool) -> Program:
    return Program(monkeypatch, is_owner)


def test_sigterm_drains_what_ends_with_the_program(program: Program, is_owner: bool) -> None:
    """On a Ray that others have started, the application stays (item 70)."""
    before = signal.getsignal(signal.SIGTERM)
    program.steps = [lambda: None, lambda: signal.raise_signal(signal.SIGTERM)]
    with pytest.raises(SystemExit) as caught:
        program.serve()
    assert (caught.value.code, program.shutdowns) == (0, is_owner)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_drains_also_before_the_application_runs(program: Program, is_owner: bool) -> None:
    with pytest.raises(SystemExit) as caught:
        program.end.serve(lambda: signal.raise_signal(signal.SIGTERM))
    assert (caught.value.code, program.shutdowns) == (0, is_owner)


def test_ctrl_c_is_raised_and_nothing_is_drained(
    program: Program, is_owner: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The program may go on, for instance in a notebook (item 70)."""
    program.steps = [lambda: signal.raise_signal(signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        program.serve()
    assert program.shutdowns == 0
    end = "this program ends" if is_owner else "mesh.delete() or mesh.shutdown()"
    assert caplog.messages == [f"interrupted; the application keeps running until {end}"]


def test_a_ray_that_ends_ends_the_program_after_its_own_clean_up(program: Program) -> None:
    """Ray's exit handlers, which would hang, do not run."""
    program.steps = [lambda: setattr(program, "has_ray_ended", True)]
    with pytest.raises(SystemExit) as caught:
        program.serve()
    assert (caught.value.code, program.statuses) == (RAY_HAS_ENDED, [])
    program.end._at_exit()
    assert program.statuses[0] == 1


def test_a_program_says_what_ends_with_it(program: Program, is_owner: bool, caplog: pytest.LogCaptureFixture) -> None:
    program.end.deployed("shop")
    program.end.deployed("blog")
    program.end.deployed("gone")
    program.end.deleted("gone")
    program.end._at_exit()
    said = ["Ray, which this program started, ends with it, and so does shop, blog."] if is_owner else []
    assert [message.partition(" To keep it")[0] for message in caplog.messages] == said


@pytest.mark.parametrize("end", [ProgramEnd.all_deleted, lambda end: end.deleted("shop")])
def test_a_program_that_has_cleaned_up_says_nothing(
    program: Program, caplog: pytest.LogCaptureFixture, end: Callable[[ProgramEnd], None]
) -> None:
    program.end.deployed("shop")
    end(program.end)
    program.end._at_exit()
    assert not caplog.messages


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mesh")
