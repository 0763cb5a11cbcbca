"""What tests of WebSockets in memory share."""

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture
def on_a_loop() -> Iterator[None]:
    """A loop that does not run: the keeper of sockets starts a timer on it."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    yield
    asyncio._set_running_loop(None)
    loop.close()
