"""HTTP requests in ASGI applications: streams both ways, clients that leave, errors, and work behind a response."""

from collections.abc import Iterator

import grpc
import pytest

from mesh.settings import settings
from mesh.web.http_call import PIECE_MAX_BYTES
from mesh.wire.web_messages import decode_response
from tests.unit.fakes.small_mesh import until
from tests.unit.web import asgi_apps
from tests.unit.web.asgi_apps import App, Passed, Raw, Seen
from tests.unit.web.web_calls import WebReplica, web_replica, web_request

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    Seen.events.clear()
    Seen.gate.clear()
    yield
    Seen.gate.set()


@pytest.fixture(scope="module")
def replica() -> Iterator[WebReplica]:
    with web_replica(App) as replica:
        yield replica


def test_a_small_response_is_one_message(replica: WebReplica) -> None:
    response = replica.ask("/large?size=5")
    assert (response.status, response.body, len(response.pieces)) == (200, b"xxxxx", 1)
    assert response.headers[b"content-length"] == b"5"


def test_the_head_of_a_request_reaches_the_application(replica: WebReplica) -> None:
    text = replica.ask("/context", headers={"x-a": "1"}).text
    assert text == "request-1 app Address(host='10.0.0.1', port=4711) 1"


def test_streamed_responses_are_flushed_piece_by_piece(replica: WebReplica) -> None:
    """Status, headers and media type come with the first piece (item 112)."""
    call = replica.start(path="/numbers?to=3&waits=1")
    first, *rest = call.wait_items(3)
    head = decode_response(first)
    assert (head.status, head.body, rest) == (206, b"0,", [b"1,", b"2,"])
    assert {b"x-kind", b"content-type"} <= set(head.headers)
    call.leave()
    assert call.ended().code == CANCELLED


def test_sync_iterators_are_streamed(replica: WebReplica) -> None:
    """Starlette iterates over them in threads (item 112)."""
    assert replica.ask("/sync").text == "0,1,2,"


def test_a_client_that_leaves_cancels_the_generator(replica: WebReplica) -> None:
    """The generator stands between two pieces (item 112)."""
    call = replica.start(path="/numbers?to=1&waits=1")
    call.wait_items(1)
    call.leave()
    assert call.ended().code == CANCELLED
    until(lambda: Seen.events, "the cancellation of the generator")
    assert Seen.events == ["cancelled"]


def test_a_failure_midway_leaves_the_response_incomplete(replica: WebReplica) -> None:
    """The gateway breaks the connection (item 112)."""
    call = replica.start(path="/numbers?to=2&fails=1")
    assert call.ended().code == INTERNAL
    assert len(call.answers.items) == 2


def test_a_slow_client_stops_the_application(replica: WebReplica) -> None:
    call = replica.start(path="/numbers?to=100", credit=5)
    call.wait_items(5)
    call.give_credit(3)
    call.wait_items(8)
    assert call.answers.outcome is None
    call.give_credit(1000)
    assert call.ended().is_ok
    assert len(call.answers.items) == 100


def test_a_client_that_leaves_frees_an_application_that_waits_for_room(replica: WebReplica) -> None:
    call = replica.start(path="/numbers?to=100", credit=5)
    call.wait_items(5)
    call.leave()
    assert call.ended().code == CANCELLED
    assert len(call.answers.items) == 5


@pytest.mark.parametrize("size", [PIECE_MAX_BYTES, PIECE_MAX_BYTES + 1, 5 * PIECE_MAX_BYTES - 1])
def test_large_bodies_leave_in_pieces(replica: WebReplica, size: int) -> None:
    response = replica.ask(f"/large?size={size}")
    assert len(response.body) == size
    assert max(map(len, response.pieces)) <= PIECE_MAX_BYTES


def test_files_are_sent(replica: WebReplica) -> None:
    with open(asgi_apps.__file__, "rb") as own:
        assert replica.ask("/file").body == own.read()


def test_a_streamed_request_is_read_as_it_comes(replica: WebReplica) -> None:
    call = replica.start(web_request("/echo", "POST"), is_streamed=True)
    call.push(b"one")
    assert decode_response(call.wait_items(1)[0]).body == b"one"
    call.push(b"two", b"three")
    assert call.wait_items(3)[1:] == [b"two", b"three"]
    call.half_close()
    assert call.response().body == b"onetwothree"


def test_an_application_that_does_not_read_stops_its_client(replica: WebReplica) -> None:
    """Credit goes back as pieces are read, so a body of any size takes bounded memory."""
    credits = settings().payload.stream_credits
    call = replica.start(web_request("/count", "POST"), is_streamed=True)
    call.push(*[b"x"] * (credits - 1))
    assert call.answers.granted == credits
    Seen.gate.set()
    until(lambda: call.answers.granted > credits, "more credit")
    call.half_close()
    assert call.response().text == str(credits - 1)


def test_a_body_that_is_here_needs_no_credit(replica: WebReplica) -> None:
    Seen.gate.set()
    call = replica.start(path="/count", method="POST", body=b"12345")
    assert call.response().text == "5"
    assert call.answers.granted == 0


def test_a_request_whose_client_leaves_is_cancelled(replica: WebReplica) -> None:
    call = replica.start(path="/hang")
    until(lambda: Seen.events, "the endpoint")
    call.leave()
    assert call.ended().code == CANCELLED
    assert Seen.events == ["hanging", "ended"]


def test_a_failure_has_its_response_and_stands_in_the_log(
    replica: WebReplica, caplog: pytest.LogCaptureFixture
) -> None:
    response = replica.ask("/broken")
    assert (response.status, response.text) == (500, "Internal Server Error")
    until(lambda: "no such number" in caplog.text, "the log")


def test_background_work_keeps_its_place_when_the_call_has_ended(replica: WebReplica) -> None:
    """The client has its response at once, and the replica its load until the work is done."""
    call = replica.start(path="/background")
    assert call.response().text == "soon"
    assert call.answers.has_place
    assert not Seen.events
    Seen.gate.set()
    until(lambda: not call.answers.has_place, "the place to be free")
    assert Seen.events == ["background"]


def test_a_response_of_a_child_task_ends_the_call_although_the_task_goes_on(replica: WebReplica) -> None:
    call = replica.start(path="/child/")
    assert call.response().text == "soon"
    assert call.answers.has_place
    Seen.gate.set()
    until(lambda: not call.answers.has_place, "the place to be free")
    assert Seen.events == ["child"]


def test_the_place_of_an_ordinary_call_is_free_with_its_end(replica: WebReplica) -> None:
    call = replica.start(path="/large?size=1")
    call.ended()
    assert not call.answers.has_place


def test_head_requests_get_no_body(replica: WebReplica) -> None:
    for path in ("/large?size=5", "/numbers?to=2"):
        response = replica.ask(path, method="HEAD")
        assert response.body == b""
    assert replica.ask("/large?size=5", method="HEAD").headers[b"content-length"] == b"5"


def test_middleware_that_streams_passes_everything_on() -> None:
    with web_replica(Passed) as replica:
        response = replica.ask("/large?size=5")
        assert (response.body, response.headers[b"x-passed"]) == (b"xxxxx", b"yes")
        assert replica.ask("/numbers?to=3").text == "0,1,2,"
        Seen.gate.set()
        assert replica.ask("/count", method="POST", body=b"123").text == "3"
        call = replica.start(path="/hang")
        until(lambda: Seen.events, "the endpoint")
        call.leave()
        call.ended()
        until(lambda: "ended" in Seen.events, "the end of the endpoint")


@pytest.fixture(scope="module")
def raw() -> Iterator[WebReplica]:
    with web_replica(Raw) as replica:
        yield replica


def test_any_asgi_callable_serves(raw: WebReplica) -> None:
    """Paths are decoded, and nothing is added to what it sends (item 103)."""
    response = raw.ask("/a%20b%C3%BC")
    assert (response.text, response.headers) == ("/a bü", {b"X-Raw": b"1"})


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/silent", INTERNAL, "returned before its response was complete"),
        ("/late", INTERNAL, "returned before its response was complete"),
        ("/wrong", INTERNAL, "out of order"),
        ("/unknown", INTERNAL, "http.response.trailers"),
        ("/careless", INTERNAL, "returned without a response"),
        ("/full", EXHAUSTED, "backpressure"),
        ("/exit", INTERNAL, "SystemExit"),
    ],
)
def test_an_application_that_fails_ends_its_call_with_a_status(
    raw: WebReplica, path: str, code: int, text: str
) -> None:
    """The gateway answers with what the status says (item 144)."""
    outcome = raw.start(path=path).ended()
    assert outcome.code == code
    assert text in outcome.message


@pytest.mark.parametrize("path", ["/empties", "/fills"])
def test_an_application_may_do_with_its_scope_what_it_likes(raw: WebReplica, path: str) -> None:
    """The access log asks that scope for the route, before the call ends."""
    raw.executor.log_accesses(True)
    assert raw.ask(path).status == 204


def test_the_end_of_the_response_is_a_disconnect(raw: WebReplica) -> None:
    raw.ask("/disconnect")
    until(lambda: Seen.events, "the disconnect")
    assert Seen.events == ["http.disconnect"]


def test_a_malformed_request_ends_its_call(raw: WebReplica) -> None:
    call = raw.start(is_streamed=True)
    call.ended()
    broken = raw.start(web_request(), is_streamed=True)
    broken.push(b"\xff")
    assert broken.ended() is not None
