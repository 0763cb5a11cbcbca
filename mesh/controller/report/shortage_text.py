"""The text for users while replicas wait for resources: what they ask for and what the cluster has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.desired.resource_request import Ask, resources_text
from mesh.controller.plan.cluster_picture import Node, Replica
from mesh.controller.plan.node_resources import could_hold
from mesh.controller.plan.replica_placement import Ledger, Room


def explain(target: DeploymentTarget, replicas: Sequence[Replica], ledger: Ledger) -> str:
    """Empty when no replica waits for room. `ledger`: one from which nothing was taken."""
    new = [each for each in replicas if each.stays_as(target.version)]
    if all(each.is_placed for each in new) and not target.ask.is_bound:
        return ""
    trial = Room(Ledger(ledger.observed, ledger.now_s), target.ask, replicas, target.version)
    # Replicas that have to run on certain nodes are not started before one is free.
    trial.spots(max(0, target.num_replicas - len(new)) if target.ask.is_bound else 0)
    if not trial.roomless:
        slow = sum(ledger.is_late(each) for each in new)
        return f"{slow} of {target.num_replicas} replicas wait for Ray to start their processes." if slow else ""
    nodes = [node for node in ledger.observed.nodes if node.ends_s is None]
    return (
        f"{trial.roomless} of {target.num_replicas} replicas wait for room: each asks for {target.ask.text}; "
        + _what_there_is(target.ask, nodes, ledger)
    )


def _what_there_is(ask: Ask, nodes: Sequence[Node], ledger: Ledger) -> str:
    if not nodes:
        return "no node takes new replicas."
    lacking = [name for name, _ in ask.whole if not any(node.total.get(name) for node in nodes)]
    if lacking:
        return f"no node has any {' or '.join(lacking)}. Add one that has, or correct ray_actor_options."
    if not could_hold(ask, nodes):
        return _never(ask, nodes)
    free = {node_id: account.free for node_id, account in ledger.accounts.items()}
    roomiest = max(nodes, key=lambda node: _share(ask, free[node.node_id]))
    text = f"the roomiest node has {_of_asked(ask, free[roomiest.node_id])} free of {_of_asked(ask, roomiest.total)}"
    limit = f", and max_replicas_per_node is {ask.per_node_max}" if ask.is_bound else ""
    count = f" ({len(nodes)} nodes take replicas{limit})" if len(nodes) > 1 or limit else ""
    return f"{text}{count}."


def _never(ask: Ask, nodes: Sequence[Node]) -> str:
    largest = max(nodes, key=lambda node: _share(ask, node.total))
    has = f"the largest node has {_of_asked(ask, largest.total)} in all"
    if len(ask.bundles) > 1:
        return f"the {len(nodes)} nodes could not hold it even if they were empty; {has}. Add nodes or ask for less."
    return f"no node is that large: {has}. Add a larger node or ask for less."


def _share(ask: Ask, resources: Mapping[str, float]) -> float:
    """How much of what is asked for the resources cover."""
    return min((resources.get(name, 0.0) / amount for name, amount in ask.whole if amount), default=1.0)


def _of_asked(ask: Ask, resources: Mapping[str, float]) -> str:
    """Only what matters here."""
    return resources_text({name: max(0.0, resources.get(name, 0.0)) for name, _ in ask.whole})
