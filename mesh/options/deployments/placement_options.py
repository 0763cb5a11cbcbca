"""The options for the placement of replicas: placement groups and replicas per node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.options import option_checks
from mesh.v1 import control_pb2

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
DEFAULT_STRATEGY = "PACK"
_MAX_REPLICAS_PER_NODE_LIMIT = 100
_ACCELERATOR_SHARE = 0.001
"""Amount of the node's accelerator_type resource that an actor takes, as in Ray."""


def check(bundles: object, strategy: object, max_replicas_per_node: object, actor_options: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError when the options are wrong or contradict each other."""
    if max_replicas_per_node is not None:
        option_checks.whole_number("max_replicas_per_node", max_replicas_per_node, 1, _MAX_REPLICAS_PER_NODE_LIMIT)
    if strategy is not None:
        _check_strategy(strategy, has_bundles=bundles is not None)
    if bundles is None:
        return
    if max_replicas_per_node is not None:
        raise ValueError("max_replicas_per_node cannot be combined with placement_group_bundles.")
    _check_bundles(bundles, actor_options)


def to_fields(bundles: Sequence[Mapping[str, float]] | None, strategy: str | None) -> dict[str, Any]:
    """Checked options as fields of the DeploymentOptions message."""
    if bundles is None:
        return {}
    return {
        "placement_group_bundles": [control_pb2.Bundle(resources=bundle) for bundle in bundles],
        "placement_group_strategy": strategy or DEFAULT_STRATEGY,
    }


def bundles_held(options: control_pb2.DeploymentOptions) -> list[control_pb2.Bundle]:
    """The resources of a replica: the bundles of its placement group, or one bundle for its actor.

    CPU and GPU are counts, memory is in bytes.
    """
    if options.placement_group_bundles:
        return list(options.placement_group_bundles)
    actor = options.actor
    held = {"CPU": actor.num_cpus, "GPU": actor.num_gpus, "memory": float(actor.memory_bytes), **actor.resources}
    if actor.accelerator_type:
        held[f"accelerator_type:{actor.accelerator_type}"] = _ACCELERATOR_SHARE
    return [control_pb2.Bundle(resources={name: amount for name, amount in held.items() if amount})]


def _check_strategy(strategy: object, *, has_bundles: bool) -> None:
    if not has_bundles:
        raise ValueError("placement_group_strategy needs placement_group_bundles.")
    if strategy not in STRATEGIES:
        raise ValueError(f"placement_group_strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")


def _check_bundles(bundles: object, actor_options: Mapping[str, Any]) -> None:
    if not isinstance(bundles, list) or not bundles:
        raise ValueError(f"placement_group_bundles must be a non-empty list of dicts, got {bundles!r}.")
    for number, bundle in enumerate(bundles):
        if not any(option_checks.amounts(f"placement_group_bundles[{number}]", bundle).values()):
            raise ValueError(
                f"placement_group_bundles[{number}] holds nothing, and Ray makes no placement group of it, got "
                f"{bundle!r}. Give it an amount of a resource above 0, or leave the bundle out."
            )
    for resource, needed in _resources(actor_options).items():
        offered = bundles[0].get(resource, 0)
        if needed > offered:
            raise ValueError(
                f"The replica's actor needs {resource}={needed:g} but the first bundle of placement_group_bundles "
                f"offers {offered:g}. Enlarge the bundle or lower ray_actor_options."
            )


def _resources(actor_options: Mapping[str, Any]) -> dict[str, float]:
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    amounts = {resource: float(actor_options.get(option, 0)) for resource, option in named.items()}
    amounts.update(actor_options.get("resources", {}))
    return amounts
