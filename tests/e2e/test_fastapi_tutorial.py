"""Chapters of FastAPI's tutorial through a gateway, with the applications of the unit tests (items 103, 111)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.unit.web.test_fastapi_parameters import Forms, Parameters
from tests.unit.web.test_fastapi_tutorial import Chat, Layered, Secured

APPLICATIONS = {
    "parameters": small(Parameters).bind("no "),
    "forms": small(Forms).bind(),
    "secured": small(Secured).bind(),
    "layered": small(Layered).bind(),
    "chat": small(Chat, max_ongoing_requests=10).bind(),
}
APP = "https://app.example.com"


@pytest.fixture(scope="module")
def client(gateway: Gateway, deploy: Deploy) -> Iterator[httpx.Client]:
    for name, application in APPLICATIONS.items():
        deploy(application, name)
    with httpx.Client(base_url=gateway.http_url, timeout=20, trust_env=False) as client:
        yield client


def test_parameters_and_what_is_wrong_with_them(client: httpx.Client) -> None:
    assert client.get("/parameters/items/3?size=large").json() == {"id": "no 3", "size": "large"}
    assert client.get("/parameters/files//a/b%20c.txt").json() == "/a/b c.txt"
    wrong = client.get("/parameters/items/0?size=huge")
    assert (wrong.status_code, [each["loc"][1] for each in wrong.json()["detail"]]) == (422, ["item_id", "size"])


def test_forms_and_uploads(client: httpx.Client) -> None:
    """Files of several pieces."""
    assert client.post("/forms/login", data={"username": "alice", "password": "x y&ü"}).json()[0] == "alice"
    large = b"\x00\xff" * 2_000_000
    files = [("files", ("a.png", large, "image/png")), ("files", ("b.txt", b"hello", "text/plain"))]
    sizes = {"a.png": ["image/png", len(large)], "b.txt": ["text/plain", 5]}
    uploaded = client.post("/forms/upload", files=files, data={"token": "t1"})
    assert uploaded.json() == {"token": "t1", "sizes": sizes}


def test_the_oauth2_password_flow(client: httpx.Client) -> None:
    refused = client.get("/secured/me")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    form = {"grant_type": "password", "username": "alice", "password": "secret"}
    token = client.post("/secured/token", data=form).json()["access_token"]
    assert client.get("/secured/me", headers={"authorization": f"Bearer {token}"}).json() == "alice"


def test_cors_of_an_application_is_its_own(client: httpx.Client) -> None:
    """The gateway, whose option is off, passes the questions of browsers on to it."""
    asked = {"origin": APP, "access-control-request-method": "PUT"}
    allowed = client.options("/layered/unicorn", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, APP)
    other = client.options("/layered/unicorn", headers={**asked, "origin": "https://evil.net"})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)
    zipped = client.get("/layered/long", headers={"origin": APP})
    assert (zipped.headers["content-encoding"], zipped.text) == ("gzip", "x" * 10_000)
    assert client.put("/layered/unicorn?n=1").status_code == 418


def test_a_chat_over_websockets(client: httpx.Client, gateway: Gateway) -> None:
    """Pages of any origin may open sockets of web applications, which look at it themselves."""
    url = f"ws://127.0.0.1:{gateway.http_port}/chat/rooms"
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/1", proxy=None)
    assert refused.value.response.status_code == 403
    with connect(f"{url}/2", additional_headers={"cookie": "session=bob"}, proxy=None, open_timeout=20) as bob:
        with connect(f"{url}/1?token=alice", origin="https://evil.net", proxy=None, open_timeout=20) as alice:  # type: ignore[arg-type]
            alice.send('{"text": "hi"}')
            for socket in (alice, bob):
                assert json.loads(socket.recv(20)) == {"room": 1, "alice": {"text": "hi"}}
        assert bob.recv(20) == "alice left"
