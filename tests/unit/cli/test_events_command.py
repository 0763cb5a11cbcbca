"""`mesh events`: what is shown of the controller's decisions."""

import json
import signal
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from mesh.cli import main
from mesh.v1 import control_pb2
from tests.unit.fakes.mesh_fakes import FakeCluster, FakeController

EVENTS = [
    control_pb2.Event(number=1, unix_time_s=0.0, text="starting replica shop/Front#r1: fewer than wanted"),
    control_pb2.Event(number=2, unix_time_s=1.0, text="replica workshop/Front#r2 ended: died", is_warning=True),
]


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    controller = cluster.run_controller()
    controller.event_list.extend(EVENTS)
    return controller


def invoke(*arguments: str) -> list[str]:
    result = CliRunner().invoke(main.main, ["events", *arguments])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_events_have_their_time_and_what_went_wrong_is_marked(controller: FakeController) -> None:
    assert invoke() == [
        "1970-01-01 00:00:00   starting replica shop/Front#r1: fewer than wanted",
        "1970-01-01 00:00:01 ! replica workshop/Front#r2 ended: died",
    ]


def test_only_those_of_one_application(controller: FakeController) -> None:
    assert [json.loads(line)["text"] for line in invoke("shop", "--json")] == [EVENTS[0].text]


def test_an_application_without_events_is_named(controller: FakeController) -> None:
    assert invoke("shpo") == ["No event that is kept names 'shpo'."]


def test_following_shows_each_event_once(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> None:
    def next_events(pause_s: float) -> None:
        if len(controller.event_list) > 2:
            raise KeyboardInterrupt
        controller.event_list.append(control_pb2.Event(number=3, text="later"))

    monkeypatch.setattr(time, "sleep", next_events)
    assert [line[22:] for line in invoke("--follow") if line] == [EVENTS[0].text, EVENTS[1].text, "later"]


@pytest.fixture
def _own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("controller", "_own_handler")
def test_sigterm_ends_the_command_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the status of a program that the signal has ended, and without Ray's stack trace."""
    monkeypatch.setattr(time, "sleep", lambda pause_s: signal.raise_signal(signal.SIGTERM))
    result = CliRunner().invoke(main.main, ["events", "shop", "--follow"])
    assert (result.exit_code, len(result.output.splitlines())) == (143, 1)
