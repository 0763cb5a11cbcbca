"""mesh.client.ray_guard: one line and an exit status when Ray ends before this process."""

import io
import threading

import pytest

from mesh.client import ray_guard
from mesh.client.ray_guard import RAY_ENDED_FIRST, RAY_HAS_ENDED, RayGuard

WAIT_S = 30.0


class FakeWatch:
    def __init__(self) -> None:
        self.raylet_ended = False
        self.gcs_silent = False
        self.looked = threading.Event()

    def has_ended(self, *, needs_gcs: bool) -> bool:
        self.looked.set()
        return self.raylet_ended or (needs_gcs and self.gcs_silent)

    def until_looked_again(self) -> None:
        for _ in range(2):
            self.looked.clear()
            assert self.looked.wait(WAIT_S)


class Ending:
    """Takes the place of the end of this process."""

    def __init__(self) -> None:
        self._status: int | None = None
        self._ended = threading.Event()

    def __call__(self, status: int) -> None:
        self._status = status
        self._ended.set()

    def status(self) -> int | None:
        assert self._ended.wait(WAIT_S)
        return self._status

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_guard, "PERIOD_S", 0.001)
    monkeypatch.setattr(ray_guard, "_SIGNAL_DELAY_S", 0.01)


def test_a_ray_that_ends_while_the_process_serves_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    watch, end = FakeWatch(), Ending()
    with RayGuard(watch, True, end):
        watch.until_looked_again()
        watch.raylet_ended = True
        assert end.status() == 1
    assert capsys.readouterr().err.splitlines() == [RAY_HAS_ENDED]


def test_a_ray_that_ends_while_the_process_is_ending_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A silent GCS counts then too."""
    watch, end = FakeWatch(), Ending()
    watch.gcs_silent = True
    with RayGuard(watch, True, end) as guard:
        watch.until_looked_again()
        assert not end.has_ended
        guard.expect_end()
        assert end.status() == 0
    assert capsys.readouterr().err.splitlines() == [RAY_ENDED_FIRST]


def test_a_process_that_was_asked_to_end_and_has_nothing_left_to_end_gives_ray_time_to_end_first() -> None:
    """One signal may have gone to both. Without it nothing is waited for."""
    watch, end = FakeWatch(), Ending()
    with RayGuard(watch, True, end) as guard:
        guard.wait_for_end()
        assert not end.has_ended
        guard.expect_end()
        watch.raylet_ended = True
        guard.wait_for_end()
        assert end.has_ended


def test_an_error_after_a_signal_waits_for_the_end_of_ray() -> None:
    """It is that of a call into a Ray that the same signal is ending."""
    watch, end = FakeWatch(), Ending()

    def clean_up() -> None:
        with RayGuard(watch, True, end) as guard:
            guard.expect_end()
            watch.gcs_silent = True
            raise ConnectionError("Ray does not answer")

    with pytest.raises(ConnectionError):
        clean_up()
    assert end.status() == 0


def test_a_process_whose_output_is_closed_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, end = FakeWatch(), Ending()
    watch.raylet_ended = True
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    with RayGuard(watch, True, end):
        assert end.status() == 1


def test_a_process_that_ends_its_own_ray_afterwards_is_left_alone() -> None:
    watch, end = FakeWatch(), Ending()
    with RayGuard(watch, True, end):
        watch.until_looked_again()
    watch.raylet_ended = True
    assert not [thread for thread in threading.enumerate() if thread.name == "ray guard"]
    assert not end.has_ended


def test_a_ray_that_others_have_started_is_watched_until_the_process_ends() -> None:
    """Ray's exit handlers hang when it is gone."""
    watch, end = FakeWatch(), Ending()
    with RayGuard(watch, False, end) as guard:
        guard.expect_end()
    watch.raylet_ended = True
    assert end.status() == 0
