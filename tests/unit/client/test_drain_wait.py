"""mesh.client.drain_wait: when the wait for a drain is over, and why it fails."""

import pytest

from mesh.client.drain_wait import DrainWait
from mesh.settings import settings
from mesh.v1 import control_pb2

STUCK_S = settings().client.drain_stuck_timeout_s
NO_ROOM = "shop/Stock: 1 of 4 replicas wait for room"


class Wait(DrainWait):
    def __init__(self) -> None:
        self.now_s = 0.0
        self.shown: list[int] = []
        super().__init__(lambda: self.now_s, lambda status: self.shown.append(status.moved_replicas))

    def sees(self, moved: int, message: str = "", status: str = "DRAINING") -> bool:
        return self.is_over(
            control_pb2.NodeStatus(
                node_id="3f2a91bc00", status=status, moved_replicas=moved, replicas_to_move=7, message=message
            )
        )


@pytest.fixture
def wait() -> Wait:
    return Wait()


def test_it_is_over_when_the_node_is_drained(wait: Wait) -> None:
    assert [wait.sees(0), wait.sees(3), wait.sees(3), wait.sees(7), wait.sees(7, status="DRAINED")] == [False] * 4 + [
        True
    ]
    assert wait.shown == [0, 3, 7, 7]


def test_it_has_no_end_while_nothing_hinders_the_replicas(wait: Wait) -> None:
    """A model may take an hour to load."""
    for hour in range(5):
        wait.now_s = 3600.0 * hour
        assert not wait.sees(1)


def test_it_fails_with_the_reason_when_there_is_no_room(wait: Wait) -> None:
    wait.sees(2)
    wait.now_s = 100.0
    assert not wait.sees(2, NO_ROOM), "it has just come up"
    wait.now_s += STUCK_S - 0.1
    assert not wait.sees(3, NO_ROOM)
    wait.now_s += STUCK_S - 0.1
    assert not wait.sees(3, NO_ROOM), "one has moved since"
    wait.now_s += 0.1
    with pytest.raises(RuntimeError, match=rf"Node 3f2a91bc is not drained: 3 of 7 replicas moved. {NO_ROOM}"):
        wait.sees(3, NO_ROOM)


def test_a_shortage_that_passes_is_none(wait: Wait) -> None:
    for _ in range(4):
        wait.now_s += STUCK_S - 0.1
        assert not wait.sees(2, NO_ROOM)
        wait.now_s += 1.0
        assert not wait.sees(2)


@pytest.mark.parametrize("status", ["READY", "CORDONED"])
def test_it_fails_when_someone_else_calls_the_drain_off(wait: Wait, status: str) -> None:
    with pytest.raises(RuntimeError, match="was called off"):
        wait.sees(2, status=status)


def test_it_fails_when_the_node_leaves_first(wait: Wait) -> None:
    wait.sees(2)
    with pytest.raises(RuntimeError, match="left the cluster before it was drained: 2 of 7 replicas moved"):
        wait.is_over(None)
