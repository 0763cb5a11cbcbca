"""Freed memory that is not used for a while goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mesh.memory.returned_memory import SurplusWatch, free_bytes

MIB = 2**20

PROGRAM = """
from mesh.memory.returned_memory import free_bytes, return_memory

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident_bytes()
blocks = [bytes(16_000) for _ in range(20_000)]
blocks = blocks[::400]  # those that live on keep the C library from shrinking its heap
grown, free = resident_bytes() - before, free_bytes()
return_memory()
print(grown, free, resident_bytes() - before)
"""


@pytest.mark.skipif(free_bytes() is None, reason="another C library, or an older one")
def test_free_memory_between_blocks_that_live_on_is_returned() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    grown, free, left = map(int, output.stdout.split())
    assert grown > 200 * MIB
    assert free > 200 * MIB
    assert left < 50 * MIB


def test_only_what_stays_free_over_several_looks_is_surplus() -> None:
    watch = SurplusWatch(64 * MIB)
    found = [watch.is_surplus(free * MIB) for free in (500, 500, 100, 500, 500, 500, 500, 500)]
    assert found == [False, False, False, False, False, True, False, False]


def test_twice_what_is_kept_may_be_free() -> None:
    watch = SurplusWatch(64 * MIB)
    assert not any(watch.is_surplus(128 * MIB) for _ in range(100))
