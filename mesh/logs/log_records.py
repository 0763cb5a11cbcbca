"""Records in the text of log files, and the query that selects some of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mesh.logs.log_files import LogName

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_BEGIN = re.compile(rf'({_TIME}) |\{{"asctime": "({_TIME})"')
"""How the first line of a record begins, as text and as JSON."""
_OWN_NEWS = re.compile(
    rf"{_TIME} (DEBUG|INFO) [^:]* mesh(\.[\w.]+)?: "
    rf'|\{{"asctime": "{_TIME}", "levelname": "(DEBUG|INFO)", "name": "mesh(\.[\w.]+)?"'
)


@dataclass(frozen=True, slots=True)
class LogRecordText:
    """One record as it stands in its file."""

    time: str
    """Empty for lines that continue a record which was read before."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which records are wanted. What is empty does not matter."""

    apps: tuple[str, ...] = ()
    deployment: str = ""
    replica_id: str = ""
    request_id: str = ""
    records_max: int = 1000
    """The latest ones; 0: none, only the places from which to read on."""
    is_console: bool = False
    """Without what the mesh itself says below the level of a warning."""

    def wants_file(self, name: LogName) -> bool:
        """Whether the file may have records that are wanted."""
        if name.kind == "controller":
            return not self.request_id or not self.apps
        return (
            (not self.apps or name.app in self.apps)
            and self.deployment in ("", name.deployment)
            and self.replica_id in ("", name.process_id)
        )

    def wants_record(self, name: LogName, text: str) -> bool:
        """For records of files that are wanted."""
        if self.request_id and self.request_id not in text:
            return False
        if self.is_console and _OWN_NEWS.match(text):
            return False
        return name.kind != "controller" or not self.apps or any(self._is_named(app, text) for app in self.apps)

    def _is_named(self, app: str, text: str) -> bool:
        """Whether the controller's record is about the application, deployment or replica."""
        deployment = re.escape(self.deployment) or "[^ ]+"
        replica = f"#{re.escape(self.replica_id)}" if self.replica_id else ""
        return re.search(rf"(?<!\S){re.escape(app)}/{deployment}{replica}(?!\w)", text) is not None


def records_of(lines: Iterable[str]) -> Iterator[LogRecordText]:
    """The records that whole lines make; each ends where the next one begins."""
    time, text = "", ""
    for line in lines:
        begin = _BEGIN.match(line)
        if begin is not None:
            if text:
                yield LogRecordText(time, text)
            time, text = begin[1] or begin[2], ""
        text = f"{text}\n{line}" if text else line
    if text:
        yield LogRecordText(time, text)
