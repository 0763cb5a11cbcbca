"""Owns the checks of options that say where replicas run: placement groups and replicas per node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh import checks

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
_MAX_REPLICAS_PER_NODE_LIMIT = 100


def check(bundles: object, strategy: object, max_replicas_per_node: object, actor_options: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError when the options are wrong or contradict each other."""
    if max_replicas_per_node is not None:
        checks.whole_number("max_replicas_per_node", max_replicas_per_node, 1, _MAX_REPLICAS_PER_NODE_LIMIT)
    if strategy is not None:
        _check_strategy(strategy, has_bundles=bundles is not None)
    if bundles is None:
        return
    if max_replicas_per_node is not None:
        raise ValueError("max_replicas_per_node cannot be combined with placement_group_bundles.")
    _check_bundles(bundles, actor_options)


def _check_strategy(strategy: object, *, has_bundles: bool) -> None:
    if not has_bundles:
        raise ValueError("placement_group_strategy needs placement_group_bundles.")
    if strategy not in STRATEGIES:
        raise ValueError(f"placement_group_strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")


def _check_bundles(bundles: object, actor_options: Mapping[str, Any]) -> None:
    if not isinstance(bundles, list) or not bundles:
        raise ValueError(f"placement_group_bundles must be a non-empty list of dicts, got {bundles!r}.")
    for number, bundle in enumerate(bundles):
        for resource, amount in checks.mapping(f"placement_group_bundles[{number}]", bundle).items():
            checks.number(f"placement_group_bundles[{number}][{resource!r}]", amount)
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
