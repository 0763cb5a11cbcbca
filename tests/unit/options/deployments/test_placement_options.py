"""mesh.options.deployments.placement_options: checks of placement groups and replicas per node (items 87, 88)."""

from typing import Any

import pytest

from mesh.options.deployments.placement_options import STRATEGIES, check

ONE_CPU = {"num_cpus": 1}


@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
def test_bundles_that_hold_the_actor_pass(strategy: str | None) -> None:
    check([{"CPU": 1, "disk": 1}], strategy, None, {"num_cpus": 1, "resources": {"disk": 1}})


@pytest.mark.parametrize(
    ("bundles", "strategy", "per_node", "actor", "words"),
    [
        ([], None, None, ONE_CPU, "non-empty list"),
        ("CPU", None, None, ONE_CPU, "non-empty list"),
        ([{"CPU": -1}], None, None, ONE_CPU, "at least 0"),
        ([{}], None, None, {"num_cpus": 0}, "bundles.0. holds nothing"),
        ([{"CPU": 1}, {"disk": 0}], None, None, ONE_CPU, "bundles.1. holds nothing"),
        ([{"CPU": 1}], None, None, {"num_cpus": 2}, "CPU=2"),
        ([{"CPU": 1}], None, None, {"num_cpus": 1, "resources": {"disk": 1}}, "disk=1"),
        ([{"CPU": 1}], "TIGHT", None, ONE_CPU, "PACK"),
        (None, "PACK", None, ONE_CPU, "needs placement_group_bundles"),
        ([{"CPU": 1}], None, 2, ONE_CPU, "cannot be combined"),
        (None, None, 0, ONE_CPU, "between 1 and 100"),
        (None, None, 101, ONE_CPU, "between 1 and 100"),
    ],
)
def test_contradictions_are_refused(bundles: Any, strategy: Any, per_node: Any, actor: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(bundles, strategy, per_node, actor)


def test_types_are_checked() -> None:
    with pytest.raises(TypeError, match="max_replicas_per_node"):
        check(None, None, 1.0, ONE_CPU)
    with pytest.raises(TypeError, match="name of a resource"):
        check([{"CPU": 1, 7: 1}], None, None, ONE_CPU)
    with pytest.raises(TypeError, match="must be a dict"):
        check([("CPU", 1)], None, None, ONE_CPU)
