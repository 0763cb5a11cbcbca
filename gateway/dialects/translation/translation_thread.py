"""Translation in a thread. What takes seconds delays nothing that takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mesh.wire.blocking_work import Work, run_blocking

T = TypeVar("T")

HUGE_MIN_BYTES = 1024 * 1024
"""A longer message waits for a thread of its kind: 16 MiB take up to seconds, and anyone may send many of them."""


async def translate_in_thread(size: int, translate: Callable[..., T], *args: Any) -> T:
    """What `translate` returns for a message of `size` bytes, or raises."""
    work = Work.TRANSLATE if size <= HUGE_MIN_BYTES else Work.TRANSLATE_HUGE
    return await run_blocking(work, translate, *args)
