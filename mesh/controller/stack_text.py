"""Where a process stands, as text: the stacks of its threads, and what a task of its event loop waits for."""

from __future__ import annotations

import asyncio
import faulthandler
import tempfile
import traceback
from types import FrameType
from typing import Any


def thread_stacks() -> str:
    """The stacks of all threads, the innermost call first. Works while they hang: it runs none of their code."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def awaits_of(task: asyncio.Task[Any]) -> str:
    """The coroutines of a task that waits, the innermost last. From any thread."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.append(frame)
        awaited = getattr(awaited, "cr_await", None)
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()
    return f"Task {task.get_name()}:\n{''.join(lines)}"
