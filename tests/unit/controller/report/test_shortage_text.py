"""mesh.controller.report.shortage_text: what the status says while replicas wait for room."""

import math
from dataclasses import replace

import pytest

from mesh.controller.desired.resource_request import ResourceRequest, resource_request_of, resources_text
from mesh.controller.plan.cluster_picture import Node, Observed, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.report.shortage_text import late_starts, room_shortage
from mesh.status import ReplicaState
from mesh.v1 import control_pb2
from tests.unit.controller.builders import replica, target

NODES = (
    Node(node_id="n1", is_head=True, total={"CPU": 2.0}, available={}),
    Node(node_id="n2", total={"CPU": 4.0}, available={"CPU": 3.0}),
)

ROOMIEST = "the roomiest node has {CPU: 3} free of {CPU: 4}"


def ask(num_replicas_per_node: int = 0, strategy: str = "", *bundles: dict[str, float]) -> ResourceRequest:
    return ResourceRequest(tuple(tuple(sorted(each.items())) for each in bundles), strategy, num_replicas_per_node)


def text_of(wanted: ResourceRequest, *replicas: Replica, nodes: tuple[Node, ...] = NODES) -> str:
    seen = Observed(replicas=replicas, nodes=nodes)
    aim, resources = replace(target(3), request=wanted), ClusterResources(seen, 0.0)
    return room_shortage(aim, replicas, resources) or late_starts(aim, replicas, resources)


def waiting() -> Replica:
    return replace(replica(ReplicaState.STARTING), is_placed=False, bundle_nodes=())


def test_without_a_waiting_replica_there_is_no_text() -> None:
    assert text_of(ask(0, "", {"CPU": 4.0}), replica()) == ""


def test_the_text_shows_requested_and_free_resources() -> None:
    assert text_of(ask(0, "", {"CPU": 4.0}), replica(), waiting(), waiting()) == (
        "2 of 3 replicas wait for room: each asks for {CPU: 4};"
        " the roomiest node has {CPU: 3} free of {CPU: 4} (2 nodes take replicas)."
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (ask(0, "", {"CPU": 8.0}), "no node is that large: the largest node has {CPU: 4} in all."),
        (ask(0, "", {"CPU": 1.0, "GPU": 1.0}), "no node has any GPU. Add one that has"),
        (
            ask(0, "STRICT_SPREAD", {"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}),
            "a placement group (STRICT_SPREAD) of {CPU: 1}, {CPU: 1}, {CPU: 1};"
            " the 2 nodes could not hold it even if they were empty",
        ),
    ],
)
def test_impossible_requests_say_so(wanted: ResourceRequest, words: str) -> None:
    assert words in text_of(wanted, waiting())


def test_replicas_that_no_node_may_take_are_mentioned() -> None:
    """Such replicas are not started, so the controller counts them (item 87)."""
    there = [replace(replica(), bundles=((),), bundle_nodes=(each.node_id,)) for each in NODES]
    limit = "2 nodes take replicas, and max_replicas_per_node is 1"
    assert text_of(ask(1, "", {}), *there) == f"1 of 3 replicas wait for room: {limit}."
    small = [replace(each, bundles=((("CPU", 1.0),),)) for each in there]
    assert text_of(ask(1, "", {"CPU": 1.0}), *small).endswith(f"each asks for {{CPU: 1}}; {ROOMIEST} ({limit}).")


def test_a_cluster_that_is_being_drained_takes_nothing() -> None:
    leaving = tuple(replace(each, ends_at_s=math.inf) for each in NODES)
    assert "no node takes new replicas." in text_of(ask(0, "", {"CPU": 1.0}), waiting(), nodes=leaving)


def test_an_actor_s_options_are_one_bundle() -> None:
    options = control_pb2.DeploymentOptions(max_replicas_per_node=2)
    options.actor.num_cpus, options.actor.memory_bytes, options.actor.accelerator_type = 2, 3 * 2**30, "L4"
    asked = resource_request_of(options)
    assert asked == ResourceRequest(((("CPU", 2.0), ("accelerator_type:L4", 0.001), ("memory", 3.0 * 2**30)),), "", 2)
    assert asked.text == "{CPU: 2, accelerator_type:L4: 0.001, memory: 3 GiB}"
    assert resources_text({"CPU": 0.5}) == "{CPU: 0.5}"
