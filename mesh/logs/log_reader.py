"""The reader of a node's log files: selected records, and the places from which to read on."""

from __future__ import annotations

import heapq
import itertools
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mesh.cluster import ray_core
from mesh.logs.log_files import DIRECTORY, LogName
from mesh.logs.log_records import LogQuery, LogRecordText, records_of

Places = Mapping[int, "Place"]
"""By number of the file's inode, which stays when a full file is renamed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where a file was read."""

    offset_bytes: int = 0
    is_wanted: bool = False
    """Whether the last record before was wanted: lines that continue it are then wanted too."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """What one reading found."""

    records: list[LogRecordText] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    names: set[LogName] = field(default_factory=set)
    """Of all files, wanted or not."""


def read_node(query: LogQuery, places: Places) -> LogPage:
    """Read the log files of the node on which this runs."""
    return read_directory(Path(ray_core.logs_directory()) / DIRECTORY, query, places)


def read_directory(directory: Path, query: LogQuery, places: Places) -> LogPage:
    """The wanted records after `places`, in the order of time."""
    page = LogPage()
    found: list[list[LogRecordText]] = []
    for path in sorted(directory.glob("*.log*")):
        name = LogName.read(path.name)
        if name is None:
            continue
        page.names.add(name)
        if not query.wants_file(name):
            continue
        try:
            with path.open("rb") as file:
                found.append(_read_file(file, name, query, page, places))
        except FileNotFoundError:  # deleted to make room
            continue
    merged = heapq.merge(*found, key=lambda record: record.time)
    page.records.extend(deque(merged, maxlen=query.records_max))
    return page


def _read_file(file: BinaryIO, name: LogName, query: LogQuery, page: LogPage, places: Places) -> list[LogRecordText]:
    inode = os.fstat(file.fileno()).st_ino
    size_bytes = file.seek(0, 2)
    place = places.get(inode, Place())
    if not query.records_max:
        page.places[inode] = Place(size_bytes)
        return []
    # A number that is used again is of a file that is shorter.
    lines = _WholeLines(file, place.offset_bytes if place.offset_bytes <= size_bytes else 0)
    wanted: deque[LogRecordText] = deque(maxlen=query.records_max)
    is_wanted = place.is_wanted
    for record in records_of(lines):
        is_wanted = query.wants_record(name, record.text) if record.time else is_wanted
        if is_wanted:
            wanted.append(record)
    page.places[inode] = Place(lines.offset_bytes, is_wanted)
    return list(wanted)


class _WholeLines:
    """The lines of a file from an offset on; an unfinished last line is left for the next reading."""

    def __init__(self, file: BinaryIO, offset_bytes: int) -> None:
        self._file = file
        self.offset_bytes = offset_bytes

    def __iter__(self) -> Iterator[str]:
        self._file.seek(self.offset_bytes)
        for line in itertools.takewhile(lambda line: line.endswith(b"\n"), self._file):
            self.offset_bytes += len(line)
            yield line.decode("utf-8", "replace").rstrip("\n")
