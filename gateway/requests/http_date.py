"""The present time as HTTP writes it, made once a second."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from time import time


def http_date() -> bytes:
    """For the field `date`, for instance b"Sun, 06 Nov 1994 08:49:37 GMT"."""
    return _text(int(time()))


@lru_cache(1)
def _text(at_s: int) -> bytes:
    return formatdate(at_s, usegmt=True).encode()
