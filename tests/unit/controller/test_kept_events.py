"""mesh.controller.kept_events: the last events, of which no kind and no application pushes out all others."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.kept_events import KeptEvents, application_of, kind_of
from mesh.v1 import control_pb2

MOST = 40
TEXTS = [
    "starting replica shop/Front#r{}: fewer than wanted",
    "replica shop/Front#r{} ended: out of memory",
    "the start of replica shop/Front#r{} failed: no model",
    "stopping replica stock/Stock#r{}: more than wanted",
    "deployment stock/Stock: HEALTHY (UPSCALE_COMPLETED) {}",
    "gateway {} on node n1 ended: killed",
]


def events(*texts: str, first: int = 0) -> list[control_pb2.Event]:
    return [control_pb2.Event(number=number, text=text) for number, text in enumerate(texts, start=first)]


def kept(*texts: str) -> list[str]:
    return [event.text for event in KeptEvents(MOST, events(*texts))]


def test_a_mass_deploy_leaves_what_happened_before_and_beside_it() -> None:
    """Ten thousand starts of one application, and a few other events."""
    starts = [TEXTS[0].format(number) for number in range(10_000)]
    others = [TEXTS[3].format(number) for number in range(9)]
    found = kept(*others[:6], *starts[:9000], *others[6:], *starts[9000:])
    assert [text for text in found if text in others] == others
    assert found[-1] == starts[-1]
    assert len(found) == MOST


def test_an_application_that_crashes_without_end_leaves_the_events_of_another() -> None:
    """Whatever of its attempts is an event, and though it is the only one from which any come now."""
    others = [TEXTS[4].format(number) for number in range(10)]
    crashes = [TEXTS[kind].format(number) for number in range(1000) for kind in range(3)]
    found = kept(*others, *crashes)
    assert found[:10] == others
    assert found[-1] == crashes[-1]


def test_a_mesh_of_one_application_and_kind_keeps_its_last_events() -> None:
    starts = [TEXTS[0].format(number) for number in range(100)]
    assert kept(*starts) == starts[-MOST:]


@given(st.lists(st.sampled_from(TEXTS), max_size=4 * MOST))
def test_what_is_kept_is_in_order_and_complete_and_the_last_of_each_kind(templates: list[str]) -> None:
    """As many as there may be, the newest of all among them, and of each kind and application its newest ones."""
    texts = [template.format(number) for number, template in enumerate(templates)]
    found = kept(*texts)
    assert len(found) == min(MOST, len(texts))
    assert found == [text for text in texts if text in set(found)]
    assert found[-1:] == texts[-1:]
    for template in TEXTS:
        ours = [text for text, each in zip(texts, templates, strict=True) if each == template]
        mine = [text for text in found if text in set(ours)]
        assert mine == ours[len(ours) - len(mine) :]


@given(st.lists(st.sampled_from(TEXTS), min_size=MOST, max_size=4 * MOST))
def test_events_that_were_stored_are_kept_by_the_next_controller_as_they_are(templates: list[str]) -> None:
    before = events(*(template.format(number) for number, template in enumerate(templates)))
    stored = list(KeptEvents(MOST, before))
    assert list(KeptEvents(MOST, stored)) == stored
    later = KeptEvents(MOST, [*stored, *events(TEXTS[5].format("g"), first=len(before))])
    assert list(later)[-1].text == TEXTS[5].format("g")


def test_events_that_came_twice_count_once() -> None:
    """As in a record that something else has written: every later line of the log would raise."""
    twice = events(*(TEXTS[0].format(number) for number in range(MOST)))
    both = KeptEvents(MOST, [*twice, *twice])
    assert list(both) == twice
    for event in events(*(TEXTS[5].format(number) for number in range(4 * MOST)), first=MOST):
        both.add(event)
    assert len(both) == MOST


def test_an_application_gets_no_more_than_half_while_others_have_events() -> None:
    others = [f"starting replica app{number % 20}/D#r: fewer than wanted" for number in range(200)]
    noisy = [f"{text} shop/Front#r{number}" for number in range(99) for text in ("starting replica", "replica", "of")]
    assert Counter(application_of(text) == "shop" for text in kept(*others, *noisy)) == {
        True: MOST // 2,
        False: MOST // 2,
    }


def test_starts_of_many_applications_leave_what_else_happens() -> None:
    others = [TEXTS[5].format(number) for number in range(MOST // 2)]
    starts = [f"starting replica app{number}/D#r: fewer than wanted" for number in range(5000)]
    found = kept(*others[:9], *starts, *others[9:])
    assert [text for text in found if text in others] == others
    assert [text for text in found if text in starts] == starts[-(MOST - len(others)) :]


@pytest.mark.parametrize(
    ("text", "kind", "app"),
    [
        ("starting replica shop/Front#a1b2: fewer than wanted", "starting replica", "shop"),
        ("the start of replica shop/Front#a1b2 failed: ValueError", "the start of", "shop"),
        ("replica shop/Front#a1b2 ended: killed", "replica", "shop"),
        ("scaling shop/Front from 1 to 2 replicas: 3 requests", "scaling", "shop"),
        ("change of application shop is stored: 2 replicas", "change of application", "shop"),
        ("application shop goes back to the version before", "application", "shop"),
        ("starting gateway g1 on node 3f2a91bc: fewer than wanted", "starting gateway", ""),
        ("MESH_REPLICA::a could not be killed: no answer", "", ""),
        ("", "", ""),
    ],
)
def test_an_event_has_a_kind_and_perhaps_an_application(text: str, kind: str, app: str) -> None:
    assert (kind_of(text), application_of(text)) == (kind, app)
