"""mesh.web.lifespan: applications that start and stop, fail, or know no lifespan (item 105)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from mesh.exceptions import MeshException
from mesh.web.lifespan import Lifespan


def app_of(events: list[str], *, fails: str = "") -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, int]]:
        events.append("startup")
        if fails == "startup":
            raise ValueError("no database")
        yield {"answer": 42}
        events.append("shutdown")
        if fails == "shutdown":
            raise ValueError("no end")

    return Starlette(lifespan=lifespan)


def test_an_application_starts_and_stops_once() -> None:
    events: list[str] = []

    async def scenario() -> None:
        lifespan = Lifespan(app_of(events))
        await lifespan.start()
        assert events == ["startup"]
        assert lifespan.state == {"answer": 42}
        await lifespan.stop()
        await lifespan.stop()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("fails", "text"), [("startup", "ValueError: no database"), ("shutdown", "ValueError: no end")]
)
def test_a_failure_says_what_happened(fails: str, text: str) -> None:
    async def scenario() -> None:
        lifespan = Lifespan(app_of([], fails=fails))
        await lifespan.start()
        await lifespan.stop()

    with pytest.raises(MeshException, match=f"The {fails} of the ASGI application failed: {text}") as caught:
        asyncio.run(scenario())
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_startup_that_fails_with_something_else_than_a_text_has_failed() -> None:
    """It counted as that of an application without a lifespan, so that the replica served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ValueError("no database")})

    with pytest.raises(MeshException, match="The startup of the ASGI application failed: no database"):
        asyncio.run(Lifespan(app).start())


async def raises(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def returns(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def stops_early(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("app", [raises, returns, stops_early])
def test_an_application_without_a_whole_lifespan_serves(app: Any) -> None:
    async def scenario() -> None:
        lifespan = Lifespan(app)
        await lifespan.start()
        await asyncio.sleep(0)
        await lifespan.stop()

    asyncio.run(scenario())


def test_a_start_that_is_given_up_ends_the_application() -> None:
    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        starting = asyncio.ensure_future(Lifespan(hangs).start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
