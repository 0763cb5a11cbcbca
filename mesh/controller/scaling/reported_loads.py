"""The loads that processes reported, until a newer report, their expiry, or the end of the Sync stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.controller.scaling.scaling_rule import Load
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class _ReportedLoad:
    stream: object
    reported_at_s: float
    queued: float
    ongoing: float
    executing: float
    stats: Mapping[str, float] = field(default_factory=dict)


class ReportedLoads:
    """Loads by deployment and process. An idle process has no entry."""

    def __init__(self) -> None:
        self._entries: dict[DeploymentKey, dict[str, _ReportedLoad]] = {}
        self._reported: dict[object, set[tuple[DeploymentKey, str]]] = {}
        """By stream: deployment and process of the loads that it has ever reported, of deployments that are wanted."""

    def report(self, process_id: str, stream: object, load: control_pb2.DeploymentLoad, now_s: float) -> None:
        """Store a load. It is forgotten with the end of `stream`, unless another stream has replaced it."""
        key = DeploymentKey(load.deployment.app, load.deployment.name)
        entries = self._entries.setdefault(key, {})
        if load.queued or load.ongoing or load.executing or load.stats:
            self._reported.setdefault(stream, set()).add((key, process_id))
            entries[process_id] = _ReportedLoad(
                stream, now_s, load.queued, load.ongoing, load.executing, dict(load.stats)
            )
        else:
            entries.pop(process_id, None)

    def forget(self, stream: object) -> None:
        """Drop the loads of a stream that has ended: its process is gone, or reports on another stream."""
        for key, process_id in self._reported.pop(stream, ()):
            entries = self._entries.get(key, {})
            if process_id in entries and entries[process_id].stream is stream:
                del entries[process_id]

    def keep(self, oldest_at_s: Mapping[DeploymentKey, float]) -> None:
        """Drop other deployments, and loads reported before the given time of each."""
        if gone := self._entries.keys() - oldest_at_s.keys():
            for key in gone:
                del self._entries[key]
            for stream, reported in self._reported.items():
                self._reported[stream] = {each for each in reported if each[0] not in gone}
        for key, entries in self._entries.items():
            for process_id in [each for each, entry in entries.items() if entry.reported_at_s < oldest_at_s[key]]:
                del entries[process_id]

    def load(self, key: DeploymentKey) -> Load:
        """The sum of all reports. Of ongoing calls, the larger of callers' and replicas' sums, one may be missing."""
        entries = self._entries.get(key, {}).values()
        ongoing = max(sum(entry.ongoing for entry in entries), sum(entry.executing for entry in entries))
        return Load(queued=sum(entry.queued for entry in entries), ongoing=ongoing)

    def stats(self, key: DeploymentKey) -> list[Mapping[str, float]]:
        """The last results of the replicas' `record_autoscaling_stats`."""
        return [entry.stats for entry in self._entries.get(key, {}).values() if entry.stats]
