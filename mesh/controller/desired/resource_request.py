"""The resources that one replica of a deployment requests, and their text for users. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mesh.options.deployments.placement_options import bundles_held
from mesh.v1 import control_pb2

Bundle = tuple[tuple[str, float], ...]
"""Resources that are on one node: sorted pairs of name and amount, memory in bytes, others in units."""

_GIB = 1024.0**3


@dataclass(frozen=True)
class ResourceRequest:
    bundles: tuple[Bundle, ...] = ((),)
    strategy: str = ""
    """How the bundles lie on nodes; empty: there is one, and it is the replica's actor."""
    per_node_max: int = 0
    """Replicas of the deployment that a node may hold; 0: no limit."""

    @property
    def is_bound(self) -> bool:
        """It must run on the node that it is assigned: Ray does not know the limit."""
        return self.per_node_max > 0

    @cached_property
    def whole(self) -> Bundle:
        """All bundles as one, for a node that takes them all."""
        total: dict[str, float] = {}
        for bundle in self.bundles:
            for name, amount in bundle:
                total[name] = total.get(name, 0.0) + amount
        return tuple(sorted(total.items()))

    @property
    def text(self) -> str:
        if not self.strategy:
            return resources_text(self.whole)
        bundles = ", ".join(resources_text(bundle) for bundle in self.bundles)
        return f"a placement group ({self.strategy}) of {bundles}"


def resource_request_of(options: control_pb2.DeploymentOptions) -> ResourceRequest:
    bundles = tuple(tuple(sorted(bundle.resources.items())) for bundle in bundles_held(options))
    return ResourceRequest(bundles, options.placement_group_strategy, options.max_replicas_per_node)


def resources_text(resources: Bundle | Mapping[str, float]) -> str:
    """{CPU: 4, memory: 2 GiB}"""
    pairs = resources.items() if isinstance(resources, Mapping) else resources
    return "{" + ", ".join(f"{name}: {_amount_text(name, amount)}" for name, amount in pairs) + "}"


def _amount_text(name: str, amount: float) -> str:
    return f"{amount / _GIB:.3g} GiB" if name == "memory" else f"{amount:g}"
