"""mesh.context: what code of Ray Serve finds there."""

from collections.abc import Iterator

import pytest

from mesh.context import (
    REQUEST,
    ReplicaContext,
    Request,
    ServeRequestContext,
    _get_serve_request_context,
    set_replica_context,
)
from mesh.wire.request_context import RequestContext

REPLICA = ReplicaContext("shop", "Model", "r1")


@pytest.fixture
def in_a_replica() -> Iterator[None]:
    set_replica_context(REPLICA)
    yield
    set_replica_context(None)


@pytest.mark.parametrize("name", ["rank", "world_size", "gang_context"])
def test_a_replica_context_says_what_to_do_without_a_rank(name: str) -> None:
    """Code for Ray Serve 2.60 learns it where it asks (item 130)."""
    with pytest.raises(AttributeError, match=f"'{name}', which Ray Serve has. .* bind one deployment for each share"):
        getattr(REPLICA, name)
    assert not hasattr(REPLICA, "rang")


@pytest.mark.usefixtures("in_a_replica")
def test_the_call_of_a_program_is_for_the_application_that_serves_it() -> None:
    """That of a client is for the application that the client has asked (items 13, 131)."""
    assert _get_serve_request_context() == ServeRequestContext()
    for asked, app_name in (("", "shop"), ("front", "front")):
        token = REQUEST.set(Request(RequestContext("r-1", app=asked)))
        try:
            assert _get_serve_request_context() == ServeRequestContext(request_id="r-1", app_name=app_name)
        finally:
            REQUEST.reset(token)
