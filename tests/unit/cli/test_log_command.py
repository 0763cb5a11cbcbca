"""mesh.cli.log_command: `mesh logs`, and the logs that `mesh run` shows, without a cluster."""

from __future__ import annotations

import threading

import pytest
from click.testing import CliRunner, Result

from mesh.cli import log_command, main
from mesh.cli.log_command import shown_logs
from mesh.logs.log_files import LogName
from mesh.logs.log_records import LogQuery


class FakeLogs:
    """Stands for ClusterLogs; has made itself known in `queries`."""

    pages: list[list[str]]
    queries: list[LogQuery]
    is_read = threading.Event()

    def __init__(self, query: LogQuery) -> None:
        self.queries.append(query)
        self.names = {
            LogName("replica", "shop", "Shop", "a1"),
            LogName("replica", "shop", "Tax", "b2"),
            LogName("replica", "blog", "Blog", "c3"),
            LogName("controller"),
        }

    def skip(self) -> None:
        self.pages.pop(0)

    def read(self, *, sees_new_nodes: bool = True) -> list[str]:
        if not self.pages:
            self.is_read.set()
        return self.pages.pop(0) if self.pages else []


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[FakeLogs]:
    FakeLogs.pages, FakeLogs.queries = [["one", "two"]], []
    FakeLogs.is_read.clear()
    monkeypatch.setattr(log_command, "ClusterLogs", FakeLogs)
    monkeypatch.setattr(log_command, "require_ray", lambda address: None)
    return FakeLogs


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, ["logs", *arguments])


def test_it_shows_what_is_asked_for(fakes: type[FakeLogs]) -> None:
    result = invoke("shop", "Tax", "--replica", "b2", "--request", "r1", "--last", "7")
    assert (result.exit_code, result.output) == (0, "one\ntwo\n")
    assert fakes.queries == [
        LogQuery(apps=("shop",), deployment="Tax", replica_id="b2", request_id="r1", records_max=7)
    ]


def test_without_arguments_it_shows_everything(fakes: type[FakeLogs]) -> None:
    assert invoke().output == "one\ntwo\n"
    assert fakes.queries == [LogQuery()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shpo"], "There are no logs of application 'shpo'. There are logs of: blog, shop. Did you mean 'shop'?"),
        (["shop", "Taxi"], "There are no logs of deployment 'Taxi'. There are logs of: Shop, Tax. Did you mean 'Tax'?"),
        (["shop", "Tax", "--replica", "a1"], "There are no logs of replica 'a1'. There are logs of: b2."),
        (["--replica", "d4"], "There are no logs of replica 'd4'. There are logs of: a1, b2, c3."),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")


def test_a_request_without_records_is_an_error(fakes: type[FakeLogs]) -> None:
    fakes.pages[:] = [[]]
    result = invoke("--request", "r1")
    assert result.exit_code == 1
    assert "No record of request 'r1'." in result.output


def test_following_goes_on_until_ctrl_c(fakes: type[FakeLogs], monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.pages[:] = [["one"], ["two"]]

    def pause(seconds: float) -> None:
        if not fakes.pages:
            raise KeyboardInterrupt

    monkeypatch.setattr(log_command.time, "sleep", pause)
    result = invoke("shop", "--follow")
    assert (result.exit_code, result.output) == (0, "one\ntwo\n\n")


def test_logs_are_shown_during_a_block_and_to_its_end(
    fakes: type[FakeLogs], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there before is not shown."""
    monkeypatch.setattr(log_command, "_FOLLOW_POLL_S", 0.001)
    fakes.pages[:] = [["before"], ["one"]]
    with shown_logs(["shop"]):
        assert fakes.is_read.wait(30)
        fakes.pages.append(["two"])
    assert capsys.readouterr().out == "one\ntwo\n"
    assert fakes.queries == [LogQuery(apps=("shop",), is_console=True)]


def test_a_cluster_that_is_gone_ends_the_logs_only(
    fakes: type[FakeLogs], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(self: FakeLogs, *, sees_new_nodes: bool = True) -> list[str]:
        self.is_read.set()
        raise RuntimeError("no Ray")

    monkeypatch.setattr(log_command, "_FOLLOW_POLL_S", 0.001)
    monkeypatch.setattr(fakes, "read", gone)
    with shown_logs(["shop"]):
        assert fakes.is_read.wait(30)
    assert capsys.readouterr().out == ""
