"""mesh.routing.waiting.places: what an error says of calls that waited for a free place."""

import pytest

from mesh.routing.snapshot import DeploymentKey
from mesh.routing.waiting.places import Places, queued_text, sent_late_text

KEY = DeploymentKey("shop", "Tax")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            Places(busy=5, total=5, connected=1, listed=1),
            "5 of 5 calls busy on 1 replica; raise max_ongoing_requests or num_replicas",
        ),
        (
            Places(busy=10, total=10, connected=2, listed=3),
            "10 of 10 calls busy on 2 replicas; raise max_ongoing_requests or num_replicas",
        ),
        (Places(listed=2), "2 replicas listed, none connected yet; see `mesh status`"),
        (Places(), "no replica is running; see `mesh status`"),
    ],
)
def test_a_queued_call_says_how_long_it_waited_and_for_what(places: Places, said: str) -> None:
    assert queued_text(KEY, 3.04, places) == f"waited 3.0 s for a free place of shop/Tax: {said}"


def test_a_call_that_was_sent_late_says_so() -> None:
    assert sent_late_text(KEY, 2.9, 3.0) == (
        "waited 2.9 of 3.0 s for a free place of shop/Tax; raise max_ongoing_requests or num_replicas, "
        "or allow more time"
    )


def test_a_short_wait_is_not_blamed() -> None:
    assert sent_late_text(KEY, 0.1, 3.0) == ""
