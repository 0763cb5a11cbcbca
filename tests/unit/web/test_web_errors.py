"""Errors of the mesh in ASGI applications: as plain deployments answer them, or as the application itself does."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

import mesh
from mesh.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    MeshException,
    QueueTimeoutError,
    ReplicaUnavailableError,
)
from tests.unit.web.web_calls import web_replica

ERRORS: dict[str, MeshException] = {
    "full": BackPressureError(num_queued_requests=1, max_queued_requests=1),
    "late": QueueTimeoutError("waited", 3.0, num_queued_requests=1, max_queued_requests=1),
    "chosen": BackPressureError(num_queued_requests=1, max_queued_requests=1, status_code=429),
    "gone": DeploymentUnavailableError("app#Model", "it failed"),
    "lost": ReplicaUnavailableError("r1"),
    "other": MeshException("anything else"),
}


def fail(kind: str) -> None:
    from tests.unit.web import test_web_errors

    raise test_web_errors.ERRORS[kind]


plain_app, handled_app, strict_app = FastAPI(), FastAPI(), FastAPI()


@mesh.ingress(plain_app)
class Plain:
    @plain_app.get("/{kind}")
    async def raises(self, kind: str) -> None:
        fail(kind)


@handled_app.exception_handler(MeshException)
async def tell(request: Request, error: MeshException) -> PlainTextResponse:
    return PlainTextResponse(type(error).__name__, 418)


@mesh.ingress(handled_app)
class Handled:
    @handled_app.get("/{kind}")
    async def raises(self, kind: str) -> None:
        fail(kind)


@strict_app.exception_handler(Exception)
async def hide(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("hidden", 500)


@mesh.ingress(strict_app)
class Strict:
    @strict_app.get("/{kind}")
    async def raises(self, kind: str) -> None:
        fail(kind)


@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [
        ("full", 503, b"1"),
        ("late", 503, b"1"),
        ("chosen", 429, None),
        ("gone", 503, None),
        ("lost", 503, None),
        ("other", 500, None),
    ],
)
def test_an_application_answers_errors_of_the_mesh_as_a_plain_deployment_does(
    kind: str, status: int, retry_after: bytes | None
) -> None:
    """With the usual time to wait where nothing else was chosen (items 113, 144)."""
    with web_replica(Plain) as replica:
        answer = replica.ask(f"/{kind}")
    assert (answer.status, answer.headers.get(b"retry-after")) == (status, retry_after)
    assert (answer.text == str(ERRORS[kind])) is (status != 500)


@pytest.mark.parametrize("kind", ERRORS)
def test_the_applications_own_handler_of_these_errors_comes_first(kind: str) -> None:
    """Also one for a class that they derive from (item 113)."""
    with web_replica(Handled) as replica:
        answer = replica.ask(f"/{kind}")
    assert (answer.status, answer.text) == (418, type(ERRORS[kind]).__name__)


def test_a_handler_for_everything_is_for_what_has_no_status() -> None:
    """Back-pressure is not a failure of the application (items 113, 144)."""
    with web_replica(Strict) as replica:
        assert replica.ask("/full").status == 503
        assert replica.ask("/other").status == 500
