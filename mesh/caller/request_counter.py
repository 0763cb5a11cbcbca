"""The number of calls that a handle and those derived from it have made."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.routing.router_metrics import REQUESTS
from mesh.routing.snapshot import DeploymentKey


@dataclass(frozen=True, slots=True, eq=False)
class RequestCounter:
    """Counts the calls of one handle; `info` describes the metric in which they appear when they have ended."""

    key: DeploymentKey
    numbers: itertools.count[int] = field(default_factory=itertools.count, repr=False)
    """Advances with each call."""

    @property
    def info(self) -> Mapping[str, object]:
        """Name, description, tag keys and default tags, as metrics of Ray have them."""
        return {
            "name": REQUESTS.name,
            "description": REQUESTS.help,
            "tag_keys": REQUESTS.label_names,
            "default_tags": {"application": self.key.app, "deployment": self.key.name},
        }
