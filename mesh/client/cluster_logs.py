"""The logs of all nodes of the cluster, read where they are and put into the order of time."""

from __future__ import annotations

import logging
import time
from typing import Any

from mesh.cluster import ray_core
from mesh.logs.log_files import LogName
from mesh.logs.log_reader import LogPage, Place, read_node
from mesh.logs.log_records import LogQuery
from mesh.settings import settings

logger = logging.getLogger("mesh")

_READ_NODE = "mesh.logs.log_reader:read_node"
_NODES_MAX_AGE_S = 5.0
"""Age of the list of nodes at which it is read again."""


class ClusterLogs:
    """One reader; each `read` goes on where the last one ended."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._places: dict[str, dict[int, Place]] = {}
        self._missing: set[str] = set()
        self._nodes: list[str] = []
        self._nodes_at_s = float("-inf")
        self.names: set[LogName] = set()
        """What the last reading found logs of, wanted or not."""

    def skip(self) -> None:
        """Leave out the records that are there now."""
        wanted, self._query = self._query, LogQuery(records_max=0)
        self.read()
        self._query = wanted

    def read(self, *, sees_new_nodes: bool = True) -> list[str]:
        """The wanted records since the last reading, the latest `records_max` of them.

        `sees_new_nodes`: ask Ray for the cluster's nodes if that was not done lately; that takes long when Ray is gone.
        """
        if sees_new_nodes and time.monotonic() - self._nodes_at_s > _NODES_MAX_AGE_S:
            self._nodes, self._nodes_at_s = _nodes_to_ask(), time.monotonic()
        pages = self._pages()
        self.names = {name for page in pages for name in page.names}
        records = sorted((record for page in pages for record in page.records), key=lambda record: record.time)
        return [record.text for record in records[-self._query.records_max :]]

    def _pages(self) -> list[LogPage]:
        """One of each node that answers. All nodes read at the same time; this process reads its own node's files."""
        own = "" if ray_core.is_ray_client() else ray_core.node_id()
        tasks = {
            node_id: ray_core.start_task(_READ_NODE, (self._query, self._places.get(node_id, {})), node_id)
            for node_id in self._nodes
            if node_id != own
        }
        pages = {own: read_node(self._query, self._places.get(own, {}))} if own in self._nodes else {}
        for node_id, task in tasks.items():
            page = self._answer(node_id, task)
            if page is not None:
                pages[node_id] = page
        self._places.update((node_id, page.places) for node_id, page in pages.items())
        return list(pages.values())

    def _answer(self, node_id: str, task: Any) -> LogPage | None:
        try:
            page: LogPage = ray_core.get_object(task, settings().client.logs_timeout_s)
        except Exception as error:  # whatever Ray raises when a node is lost
            if node_id not in self._missing:
                reason = str(error).partition("\n")[0] or type(error).__name__
                logger.warning("the logs of node %s are missing: %s", node_id[:8], reason)
            self._missing.add(node_id)
            return None
        self._missing.discard(node_id)
        return page


def _nodes_to_ask() -> list[str]:
    """One living node of each machine, because the nodes of a machine share its files; of its own this one."""
    own = ray_core.node_id()
    by_address: dict[str, str] = {}
    for node in ray_core.list_nodes():
        if node.is_alive and (node.node_id == own or node.address not in by_address):
            by_address[node.address] = node.node_id
    return list(by_address.values())
