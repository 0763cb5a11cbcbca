"""Request bodies with one JSON message per line, cut as their bytes arrive."""

from __future__ import annotations

from gateway.transcoding.field_error import FieldError


class LineReader:
    """Cuts one body. Lines end with LF or CR LF; the last one may end with the body; empty ones mean nothing."""

    __slots__ = ("_begun", "_line_max_bytes", "_number")

    def __init__(self, line_max_bytes: int) -> None:
        self._line_max_bytes = line_max_bytes
        self._begun = bytearray()
        self._number = 0

    @property
    def begun_bytes(self) -> int:
        """Bytes of the line that is not complete."""
        return len(self._begun)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The lines that are complete with these bytes, with their numbers. Raises FieldError for one that is long."""
        if b"\n" not in data:
            self._begun += data
            self._check(len(self._begun))
            return []
        first, *rest = data.split(b"\n")
        self._begun += first
        complete = [bytes(self._begun), *rest[:-1]]
        self._begun = bytearray(rest[-1])
        self._check(max(len(self._begun), *map(len, complete)))
        return self._numbered(complete)

    def end(self) -> list[tuple[int, bytes]]:
        """The last line, if it did not end with a line feed."""
        last, self._begun = bytes(self._begun), bytearray()
        return self._numbered([last])

    def _numbered(self, lines: list[bytes]) -> list[tuple[int, bytes]]:
        numbered = []
        for line in lines:
            self._number += 1
            if line.strip():
                numbered.append((self._number, line))
        return numbered

    def _check(self, size: int) -> None:
        if size > self._line_max_bytes:
            raise FieldError(f"a line of the body has more than {self._line_max_bytes} bytes")
