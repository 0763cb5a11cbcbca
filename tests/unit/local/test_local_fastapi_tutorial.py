"""Chapters of FastAPI's tutorial in local testing mode: the tests of the mesh."""

# ruff: noqa: F403, F405

from collections.abc import Iterator

import pytest

from gateway.local_ports import local_apps
from tests.e2e.conftest import Gateway
from tests.e2e.test_fastapi_tutorial import *


class OfEachApplication(httpx.BaseTransport):
    """Each local application has a gateway of its own: requests go to that of their route prefix."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls
        self._transport = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=httpx.URL(self._urls[request.url.path.split("/")[1]]).port)
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with local_apps() as run:
        yield {
            name: run(application, name=name, route_prefix=f"/{name}").http_url
            for name, application in APPLICATIONS.items()
        }


@pytest.fixture(scope="module")
def client(urls: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url="http://127.0.0.1", timeout=20, transport=OfEachApplication(urls)) as client:
        yield client


@pytest.fixture(scope="module")
def gateway(urls: dict[str, str]) -> Gateway:
    """That of the chat, for its sockets."""
    return Gateway(0, httpx.URL(urls["chat"]).port or 0)
