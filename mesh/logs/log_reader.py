"""The reader of a node's log files: selected records, and the places from which to read on."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping
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


_BEGIN = Place()


@dataclass(frozen=True, slots=True)
class LogPage:
    """What one reading found."""

    records: list[LogRecordText] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    names: set[LogName] = field(default_factory=set)
    """Names of all log files that were found, wanted or not."""


def read_node(query: LogQuery, places: Places) -> LogPage:
    """Read the log files of the node on which this runs."""
    return read_directory(Path(ray_core.logs_directory()) / DIRECTORY, query, places)


def read_directory(directory: Path, query: LogQuery, places: Places) -> LogPage:
    """The wanted records after `places`, in the order of time."""
    page = LogPage()
    for changed_at, path, name in _newest_first(directory):
        page.names.add(name)
        if not query.wants_file(name):
            continue
        # Nothing in this file or in the older ones is later than the records that are here already.
        is_full = len(page.records) >= query.records_max and (not page.records or page.records[0].time > changed_at)
        try:
            with path.open("rb") as file:
                found = _read_file(file, name, query, page, places, is_skipped=is_full)
        except FileNotFoundError:  # deleted to make room
            continue
        if found:
            merged = sorted([*page.records, *found], key=lambda record: record.time)
            page.records[:] = merged[-query.records_max :]
    return page


def _newest_first(directory: Path) -> list[tuple[str, Path, LogName]]:
    """The log files with the time of their last change, in the form and clock of records."""
    found = []
    for path in directory.glob("*.log*"):
        name = LogName.read(path.name)
        if name is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            # One second more: a record gets its time before it is written.
            changed_at = time.localtime(path.stat().st_mtime + 1.0)
            found.append((time.strftime("%Y-%m-%d %H:%M:%S,999", changed_at), path, name))
    return sorted(found, reverse=True)


def _read_file(
    file: BinaryIO, name: LogName, query: LogQuery, page: LogPage, places: Places, *, is_skipped: bool
) -> list[LogRecordText]:
    inode = os.fstat(file.fileno()).st_ino
    size_bytes = file.seek(0, os.SEEK_END)
    if is_skipped:
        page.places[inode] = Place(size_bytes)
        return []
    place = places.get(inode, _BEGIN)
    if place.offset_bytes > size_bytes:  # the number is used again, for a file that is shorter
        place = _BEGIN
    file.seek(place.offset_bytes)
    data = file.read()
    # An unfinished last line is left for the next reading.
    data = data[: data.rfind(b"\n") + 1]
    wanted, is_wanted = _wanted_records(data, name, query, place)
    page.places[inode] = Place(place.offset_bytes + len(data), is_wanted)
    return wanted


def _wanted_records(data: bytes, name: LogName, query: LogQuery, place: Place) -> tuple[list[LogRecordText], bool]:
    """The latest wanted records, and whether the last record was wanted."""
    if query.request_id and query.request_id.encode() not in data and not place.is_wanted:
        return [], False  # most files: this look is much faster than that at each record
    wanted: deque[LogRecordText] = deque(maxlen=query.records_max)
    is_wanted = place.is_wanted
    for record in records_of(data.decode("utf-8", "replace").split("\n")[:-1]):
        is_wanted = query.wants_record(name, record.text) if record.time else is_wanted
        if is_wanted:
            wanted.append(record)
    return list(wanted), is_wanted
