"""The ASGI application of a replica: how it is made, its lifespan, and its answers to web calls."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from mesh.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from mesh.web.app_snapshot import Function, restore
from mesh.web.asgi_types import AsgiApp, Scope, WebChannel
from mesh.web.asgi_websocket import AsgiWebSocket
from mesh.web.http_call import HttpCall
from mesh.web.ingress import BUILD_METHOD, IngressApp
from mesh.web.lifespan import Lifespan
from mesh.web.method_routes import FOREIGN, bind_routes, bound, foreign_endpoint, is_fastapi
from mesh.wire.outcome import USUAL_BACKPRESSURE, BackpressureAnswer

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.responses import Response


class AsgiService:
    """Answers web calls with the application of `@mesh.ingress`."""

    def __init__(self, app: AsgiApp, limiter: CapacityLimiter) -> None:
        self._app = app
        self._lifespan = Lifespan(app)
        self._limiter = limiter
        """The limit of Starlette's threads."""

    def __repr__(self) -> str:
        return f"<AsgiService of {type(self._app).__name__}, {self._lifespan!r}>"

    @classmethod
    async def start(cls, ingress: IngressApp, instance: object, threads_max: int) -> AsgiService:
        """Make the application of `instance`, whose constructor has run, and run its startup. On the user loop.

        `threads_max`: `def` endpoints and iterators of Starlette that run at a time, if that is more than its default.
        Raises what user code raises, MeshException for a failed startup, TypeError for what is not an application.
        """
        # Not at the top: only replicas that serve ASGI pay for these.
        import anyio.to_thread

        app = _with_handlers(await _application(ingress, instance))
        service = cls(app, anyio.to_thread.current_default_thread_limiter())
        service.set_threads_max(threads_max)
        await service._lifespan.start()
        return service

    def set_threads_max(self, threads_max: int) -> None:
        """Let that number of `def` endpoints run at a time, if it is more than before."""
        self._limiter.total_tokens = max(self._limiter.total_tokens, threads_max)

    async def serve(self, body: bytes, channel: WebChannel, scope: Scope) -> None:
        """Answer one request or WebSocket. Raises what the application raises."""
        if self._lifespan.state:
            scope["state"] = self._lifespan.state.copy()
        if scope["type"] == "websocket":
            websocket = AsgiWebSocket(channel, scope)
            await self._app(scope, websocket.receive, websocket.send)
            await websocket.end()
        else:
            call = HttpCall(body, channel, scope)
            await self._app(scope, call.receive, call.send)
            call.check_complete()

    async def stop(self) -> None:
        """Run the application's shutdown. Raises MeshException if it fails."""
        await self._lifespan.stop()


async def _application(ingress: IngressApp, instance: object) -> Any:
    build = getattr(instance, BUILD_METHOD, None)
    if callable(build):
        # It wins over an application that was given, which is then a placeholder.
        made = build()
        app = await made if inspect.isawaitable(made) else made
    elif ingress.build_for is not None:
        app = ingress.build_for(instance)
    elif ingress.build is not None:
        made = ingress.build()
        app = await made if inspect.isawaitable(made) else made
    else:
        app = _restored(ingress, instance)
    if not callable(app):
        raise TypeError(f"An ASGI application is needed, but its builder returned {app!r}.")
    return _mounted(app) if is_fastapi(app) else app


def _restored(ingress: IngressApp, instance: object) -> Any:
    methods: list[Function] = [bound(function, instance) for function in ingress.methods]
    app = restore(ingress.snapshot, lambda number: foreign_endpoint if number == FOREIGN else methods[number])
    if is_fastapi(app):
        bind_routes(app, instance)
    return app


def _mounted(app: Any) -> Any:
    """A router of FastAPI is not an application of its own."""
    from fastapi import FastAPI

    if isinstance(app, FastAPI):
        return app
    whole = FastAPI(openapi_url=None)
    whole.include_router(app)
    return whole


def _with_handlers(app: Any) -> Any:
    """Let the application answer back-pressure and what is unavailable with 503 and not with 500 (items 113, 144).

    Unless it has a handler for them: of their own, or of a class that they derive from, except for one that takes all.
    An application that is not one of Starlette's lets these errors pass, and the gateway answers likewise.
    """
    from starlette.applications import Starlette

    if isinstance(app, Starlette):
        for error in (BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError):
            if app.exception_handlers.keys().isdisjoint(set(error.__mro__) - {Exception}):
                app.add_exception_handler(error, _unavailable)
    return app


async def _unavailable(request: object, error: Exception) -> Response:
    from starlette.responses import PlainTextResponse

    answer = BackpressureAnswer(503)
    if isinstance(error, BackPressureError):
        chosen = BackpressureAnswer(error.status_code, error.retry_after_s)
        answer = chosen if error.has_own_answer else USUAL_BACKPRESSURE
    retry_after_s = answer.retry_after_s
    headers = {} if retry_after_s is None else {"retry-after": str(math.ceil(retry_after_s))}
    return PlainTextResponse(str(error), answer.status_code, headers)
