"""Owns putting the parts of large messages together again."""

from __future__ import annotations

from mesh.v1 import replica_pb2


class MalformedFrameError(Exception):
    """The peer broke the protocol; the link has to be closed."""


class _Assembly:
    __slots__ = ("buffer", "filled", "head_bytes")

    def __init__(self, total_bytes: int, head_bytes: int) -> None:
        self.buffer = bytearray(total_bytes)
        self.head_bytes = head_bytes
        self.filled = 0


class Assembler:
    """Collects parts by call and gives back whole frames.

    Each message is received into one buffer of its final size, of which the payload's sections are views: large
    arrays are copied once on arrival and never again.
    """

    def __init__(self, message_max_bytes: int) -> None:
        self._message_max_bytes = message_max_bytes
        self._assemblies: dict[int, _Assembly] = {}

    def add(self, call_id: int, part: replica_pb2.Part) -> tuple[replica_pb2.Frame, memoryview] | None:
        """Take one part; when it was the last, returns the frame's head and its sections' bytes.

        Raises MalformedFrameError for a message that is too large, or parts that do not fit.
        """
        assembly = self._assemblies.get(call_id)
        if assembly is None:
            assembly = self._begin(call_id, part)
        data = part.data
        end = assembly.filled + len(data)
        if end > len(assembly.buffer):
            raise MalformedFrameError(f"parts of call {call_id} exceed the announced {len(assembly.buffer)} bytes")
        assembly.buffer[assembly.filled : end] = data
        assembly.filled = end
        if end < len(assembly.buffer):
            return None
        del self._assemblies[call_id]
        view = memoryview(assembly.buffer).toreadonly()
        head = replica_pb2.Frame.FromString(bytes(view[: assembly.head_bytes]))
        return head, view[assembly.head_bytes :]

    def discard(self, call_id: int) -> bool:
        """Forget an unfinished message; returns whether there was one."""
        return self._assemblies.pop(call_id, None) is not None

    def _begin(self, call_id: int, part: replica_pb2.Part) -> _Assembly:
        limit, head, total = self._message_max_bytes, part.head_bytes, part.total_bytes
        # The limit is on payloads; a frame's head comes on top.
        if not 0 < head <= total or max(head, total - head) > limit:
            raise MalformedFrameError(
                f"message of {total} bytes with a head of {head} on call {call_id}; the limit is {limit}"
            )
        assembly = self._assemblies[call_id] = _Assembly(total, head)
        return assembly
