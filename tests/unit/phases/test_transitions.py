"""mesh.phases.transitions: tables are read in one way."""

from enum import Enum, auto

import pytest

from mesh.phases.transitions import WrongTransitionError, next_state


class Door(Enum):
    OPEN = auto()
    SHUT = auto()


class Hand(Enum):
    PULL = auto()
    PUSH = auto()


TABLE = {(Door.OPEN, Hand.PUSH): Door.SHUT, (Door.SHUT, Hand.PULL): Door.OPEN}


def test_an_expected_event_leads_to_the_next_state() -> None:
    assert next_state(TABLE, Door.OPEN, Hand.PUSH) is Door.SHUT


def test_an_unexpected_event_is_named_with_the_state_it_came_in() -> None:
    with pytest.raises(WrongTransitionError, match="PULL while OPEN"):
        next_state(TABLE, Door.OPEN, Hand.PULL)
