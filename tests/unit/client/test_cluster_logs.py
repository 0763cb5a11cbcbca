"""mesh.client.cluster_logs: every machine is read once, the own one without a task, and lost nodes are named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mesh.client import cluster_logs
from mesh.client.cluster_logs import ClusterLogs
from mesh.cluster import ray_core
from mesh.cluster.ray_core import RayNode
from mesh.logs.log_reader import LogPage, Places, read_directory
from mesh.logs.log_records import LogQuery


class Machines:
    """Machines with a directory each; the driver is on the first one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes = [RayNode(name, name == "n1", True, "", address=name) for name in ("n1", "n2")]
        self.lost: set[str] = set()
        self.asked: list[str] = []
        self.listed = 0

    def log(self, node_id: str, second: int, text: str) -> None:
        directory = self.root / node_id
        directory.mkdir(exist_ok=True)
        with (directory / f"replica#shop#Shop#{node_id}.log").open("a") as file:
            file.write(f"2026-11-28 20:15:{second:02d},000 INFO replica x mine: {text}\n")

    def list_nodes(self) -> list[RayNode]:
        self.listed += 1
        return self.nodes

    def start_task(self, import_path: str, arguments: tuple[LogQuery, Places], node_id: str) -> Any:
        assert import_path == "mesh.logs.log_reader:read_node"
        self.asked.append(node_id)
        return lambda: read_directory(self.root / node_id, *arguments)

    def get_object(self, task: Any, timeout_s: float) -> LogPage:
        if self.asked[-1] in self.lost:
            raise RuntimeError("The node is lost.\nAnd more.")
        page: LogPage = task()
        return page


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    machines = Machines(tmp_path)
    monkeypatch.setattr(ray_core, "is_ray_client", lambda: False)
    monkeypatch.setattr(ray_core, "node_id", lambda: "n1")
    for name in ("list_nodes", "start_task", "get_object"):
        monkeypatch.setattr(ray_core, name, getattr(machines, name))
    monkeypatch.setattr(cluster_logs, "read_node", lambda *arguments: read_directory(tmp_path / "n1", *arguments))
    return machines


def texts(records: list[str]) -> list[str]:
    return [record.partition("mine: ")[2] for record in records]


def test_the_records_of_all_nodes_are_in_the_order_of_time(machines: Machines) -> None:
    machines.log("n1", 1, "one")
    machines.log("n2", 2, "two")
    machines.log("n1", 3, "three")
    logs = ClusterLogs(LogQuery())
    assert texts(logs.read()) == ["one", "two", "three"]
    assert {name.process_id for name in logs.names} == {"n1", "n2"}
    assert machines.asked == ["n2"]
    machines.log("n2", 4, "four")
    assert texts(logs.read()) == ["four"]


def test_the_latest_records_of_all_nodes_are_kept(machines: Machines) -> None:
    for second in range(5):
        machines.log("n1", 2 * second, str(2 * second))
        machines.log("n2", 2 * second + 1, str(2 * second + 1))
    assert texts(ClusterLogs(LogQuery(records_max=3)).read()) == ["7", "8", "9"]


def test_what_is_there_can_be_skipped(machines: Machines) -> None:
    machines.log("n1", 1, "one")
    machines.log("n2", 2, "two")
    logs = ClusterLogs(LogQuery())
    logs.skip()
    machines.log("n2", 3, "three")
    assert texts(logs.read()) == ["three"]


def test_nodes_that_share_a_machine_are_read_once(machines: Machines) -> None:
    machines.nodes = [RayNode(name, False, True, "", address="one") for name in ("n0", "n1", "n2")]
    machines.log("n1", 1, "one")
    assert texts(ClusterLogs(LogQuery()).read()) == ["one"]
    assert machines.asked == []


def test_a_lost_node_is_named_once_and_the_others_are_shown(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    machines.log("n1", 1, "one")
    machines.lost.add("n2")
    logs = ClusterLogs(LogQuery())
    with caplog.at_level(logging.WARNING, "mesh"):
        assert texts(logs.read()) == ["one"]
        logs.read()
    assert [record.getMessage() for record in caplog.records] == ["the logs of node n2 are missing: The node is lost."]


def test_dead_nodes_are_not_asked_and_nodes_are_not_listed_at_each_reading(machines: Machines) -> None:
    machines.nodes = [RayNode("n1", True, True, "", address="n1"), RayNode("n2", False, False, "", address="n2")]
    logs = ClusterLogs(LogQuery())
    for _ in range(3):
        logs.read()
    assert (machines.asked, machines.listed) == ([], 1)
