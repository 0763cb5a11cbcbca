"""mesh.routing.choice.traffic_split: a canary gets its share of the requests, each of which stays with one version."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.link.outgoing_call import CallRequest
from mesh.routing.choice.traffic_split import CallingReplica, TrafficRule, TrafficSplit, renewed
from mesh.wire.request_context import RequestContext

CALLS = 10_000


def request(session_id: str = "", metadata: tuple[tuple[str, str | bytes], ...] = (), track: str = "") -> CallRequest:
    return CallRequest("m", None, RequestContext("id", track=track), session_id=session_id, metadata=metadata)


def goes_to_the_canary(split: TrafficSplit, asked: CallRequest) -> bool:
    split.decide(asked)
    return split.rule.canary_track in asked.context.track


@given(percent=st.floats(0, 100), start=st.floats(0, 1, exclude_max=True))
def test_the_share_is_kept_to_within_one_call(percent: float, start: float) -> None:
    split = TrafficSplit(TrafficRule("shop", "v2", percent / 100), start)
    taken = sum(goes_to_the_canary(split, request()) for _ in range(500))
    assert abs(taken - 500 * percent / 100) <= 1 + 1e-6


@pytest.mark.parametrize("percent", [0, 1, 10, 33, 50, 100])
def test_many_callers_with_few_calls_keep_the_share_together(percent: float) -> None:
    """Within one percent of 10,000 calls, although each caller makes three."""
    starts = random.Random(1)
    rule = TrafficRule("shop", "v2", percent / 100)
    splits = [TrafficSplit(rule, starts.random()) for _ in range(CALLS // 3)]
    taken = sum(goes_to_the_canary(split, request()) for split in splits for _ in range(3))
    assert abs(taken - len(splits) * 3 * percent / 100) <= CALLS / 100


def test_sessions_stay_with_their_version_and_keep_the_share() -> None:
    rule = TrafficRule("shop", "v2", 0.2)
    one, other = TrafficSplit(rule, 0.1), TrafficSplit(rule, 0.9)
    names = [f"session {number}" for number in range(CALLS)]
    chosen = [goes_to_the_canary(one, request(name)) for name in names]
    assert chosen == [goes_to_the_canary(other, request(name)) for name in names]
    assert abs(sum(chosen) - CALLS * 0.2) <= CALLS / 100


@pytest.mark.parametrize(("value", "sent", "goes"), [("", "any", True), ("yes", "yes", True), ("yes", "no", False)])
def test_a_metadata_entry_sends_a_request_to_the_canary(value: str, sent: str, goes: bool) -> None:
    split = TrafficSplit(TrafficRule("shop", "v2", 0.0, "x-canary", value), 0.0)
    assert goes_to_the_canary(split, request(metadata=(("other", b"1"), ("x-canary", sent)))) is goes
    assert not goes_to_the_canary(split, request())


def test_what_is_decided_stays_and_other_applications_do_not_count() -> None:
    shop, stock = (TrafficSplit(TrafficRule(app, "v2", 1.0), 0.0) for app in ("shop", "stock"))
    asked = request(track="|-shop||+shop2|")
    assert not goes_to_the_canary(shop, asked)
    assert goes_to_the_canary(stock, asked)
    assert asked.context.track == "|-shop||+shop2||+stock|"
    assert asked.context.for_child("model").track == asked.context.track


def test_calls_of_one_request_for_several_models_go_to_one_version() -> None:
    split = TrafficSplit(TrafficRule("shop", "v2", 0.5), 0.0)
    parents = [RequestContext(f"r{number}") for number in range(10)]
    chosen: list[set[bool]] = []
    for parent in parents:
        calls = [CallRequest("m", None, parent.for_child(model)) for model in ("a", "b", "")]
        chosen.append({goes_to_the_canary(split, call) for call in calls})
    assert sorted(map(list, chosen)) == [[False]] * 5 + [[True]] * 5


VERSIONS = frozenset({("Front", "v2"), ("Pricer", "p2")})


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (None, ""),
        (CallingReplica("shop", "Front", "v2"), "|+shop|"),
        (CallingReplica("shop", "Front", "v1"), "|-shop|"),
        (CallingReplica("shop", "Pricer", "v2"), "|-shop|"),
        (CallingReplica("shop", "Shared", "v2"), ""),
        (CallingReplica("stock", "Front", "v2"), ""),
    ],
)
@pytest.mark.parametrize("track", ["", "|+shop|", "|-shop|", "|-shop2||+shop|"])
def test_calls_of_a_replica_stay_with_its_version(caller: CallingReplica | None, expected: str, track: str) -> None:
    """Whatever was decided for the request. Replicas that serve both versions, and of others, follow the request."""
    rule = TrafficRule("shop", "p2", 1.0, canary_versions=VERSIONS)
    split = TrafficSplit(rule, 0.0, caller)
    parent = RequestContext("id", track=track)
    calls = [CallRequest("m", None, parent.for_child(model)) for model in ("a", "", "a")]
    for call in calls:
        split.decide(call)
    before = "|-shop2|" if "shop2" in track else ""
    followed = track if "shop|" in track else "|+shop|"
    assert {call.context.track for call in calls} == {before + expected if expected else followed}


def test_what_decides_knows_its_replica_also_after_another_rule() -> None:
    caller = CallingReplica("shop", "Front", "v2")
    for share in (0.0, 0.5):
        rule = TrafficRule("shop", "p2", share, canary_versions=VERSIONS)
        split = renewed(None, rule, lambda: 0.0, caller)
        assert split is not None
        assert goes_to_the_canary(split, request())
        assert renewed(split, rule, lambda: 0.0, caller) is split
