"""mesh.web.asgi_scope: scopes are made once for equal heads, and no request sees what another has put into its own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from mesh import context
from mesh.v1 import web_pb2
from mesh.web import asgi_scope as module
from mesh.web.asgi_scope import ServedWebRequest, asgi_scope, read_web_request
from mesh.wire.request_context import RequestContext
from mesh.wire.web_messages import REQUEST, head_part
from tests.unit.web.web_calls import web_request

TEXT = st.text("ab/%", max_size=6)


def packed(request: web_pb2.WebRequest, request_id: bytes = b"", body: bytes = b"") -> bytes:
    """As a gateway sends it."""
    return REQUEST.join(head_part(request), request_id, body)


@given(TEXT, st.sampled_from(["GET", "POST"]), st.booleans(), st.sampled_from([b"", b"id"]), st.binary(max_size=9))
def test_a_scope_is_that_of_the_whole_message(
    path: str, method: str, is_websocket: bool, request_id: bytes, body: bytes
) -> None:
    request = web_request(f"/{path}", method, is_websocket=is_websocket, subprotocols=["chat"])
    data = packed(request, request_id, body)
    whole = web_pb2.WebRequest.FromString(data)
    for _ in range(2):
        assert read_web_request(data) == (asgi_scope(whole), body)
    assert read_web_request(whole.SerializeToString()) == (asgi_scope(whole), body)


@pytest.mark.parametrize("request_id", [b"", b"id"])
def test_requests_share_nothing_that_can_be_changed(request_id: bytes) -> None:
    data = packed(web_request("/shared"), request_id)
    first, _ = read_web_request(data)
    untouched = repr(first)
    change(first)
    assert repr(read_web_request(data)[0]) == untouched


def change(scope: dict[str, Any]) -> None:
    scope["headers"].append((b"x", b"1"))
    scope["extensions"]["x"] = {}
    scope["state"] = {}
    scope["path"] = "/other"


def test_few_and_small_heads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_scopes", {})
    monkeypatch.setattr(module, "_KEPT_MAX", 4)
    for number in range(9):
        assert read_web_request(packed(web_request(f"/{number}")))[0]["path"] == f"/{number}"
        assert len(module._scopes) <= 4
    kept = len(module._scopes)
    large = web_request("/large", headers={"x": "y" * 2_000})
    assert read_web_request(packed(large))[0]["path"] == "/large"
    assert len(module._scopes) == kept


def test_work_that_outlives_a_web_request_has_its_route() -> None:
    """The pattern that the application has matched, also where it does so later (items 13, 131)."""
    request = ServedWebRequest(RequestContext("r1", "/shop"), deadline_at_s=1.0)
    request.scope = {"type": "http"}
    token = context.REQUEST.set(request)
    context.outlive_request()
    background = context.current_request()
    context.REQUEST.reset(token)
    request.scope["route"] = Route("/items/{item_id}", lambda scope: None)
    assert isinstance(background, ServedWebRequest)
    assert (background.route, background.is_http_request) == ("/shop/items/{item_id}", True)
    assert (background.request_id, background.deadline_at_s) == ("r1", None)
