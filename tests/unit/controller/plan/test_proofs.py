"""mesh.controller.plan.proofs: what a large mesh costs; what is proven is tested with the generations."""

from dataclasses import replace

import pytest

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.controller.plan.proofs import new_proofs
from mesh.routing.snapshot import DeploymentKey
from tests.unit.controller.builders import application, target


class CountedName(str):
    """Counts how often names are compared; those in a dict are not, as they are the same objects."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedName.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_the_deployments_of_all_are_not_searched_for_each_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each turn while a file of thousands of applications is updated."""
    monkeypatch.setattr(CountedName, "compared", 0)
    names = [CountedName(f"app {number}") for number in range(200)]
    specs = {name: application(name) for name in names}
    keys = [DeploymentKey(name, "Model") for name in names]
    targets = {key: replace(target(), key=key) for key in keys}
    desired = Desired(deployments=targets, applications=specs, predecessors=specs)
    assert not new_proofs(desired, Observed(), now_s=100.0, unix_now_s=100.0).succeeded
    assert CountedName.compared < 20 * len(names)
