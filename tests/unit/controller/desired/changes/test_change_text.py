"""mesh.controller.desired.changes.change_text: what users read about a change before and after it (item 245)."""

from collections.abc import Callable

import pytest

from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.controller.desired.changes.desired_change import ConfigSource, with_applications
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application

EMPTY = control_pb2.DesiredState()


def changed(edit: Callable[[control_pb2.ApplicationSpec], object]) -> list[str]:
    """The lines about application "a", which `edit` changes."""
    edited = application("a")
    edit(edited)
    before = with_applications(EMPTY, [application("a"), application("b")], 1.0)
    changes = changes_by_application(before, with_applications(before, [edited], 2.0))
    assert changes.pop("b") == []
    return changes["a"]


def test_who_deploys_it_and_when_is_no_change() -> None:
    before = with_applications(EMPTY, [application("a")], 1.0)
    again = application("a")
    again.deployments[0].code = b"the same code, pickled by another process"
    assert changes_by_application(before, with_applications(before, [again], 2.0, config_file=ConfigSource("x"))) == {
        "a": []
    }


def test_applications_and_deployments_come_and_go() -> None:
    before = with_applications(EMPTY, [application("a")], 1.0, config_file=ConfigSource("one"))
    after = with_applications(before, [application("b")], 2.0, config_file=ConfigSource("other"))
    assert changes_by_application(before, after) == {"a": ["a: deleted"], "b": ["b: new"]}
    name = application("a").deployments[0].name
    assert changed(lambda app: app.deployments.add(name="More", version="v1", code=b"code")) == ["a/More: new"]

    def rename(app: control_pb2.ApplicationSpec) -> None:
        app.deployments[0].name = app.ingress = "Other"

    assert changed(rename) == [f"a: ingress: {name!r} -> 'Other'", f"a/{name}: deleted", "a/Other: new"]


def set_option(name: str, value: object) -> Callable[[control_pb2.ApplicationSpec], object]:
    return lambda app: setattr(app.deployments[0].options, name, value)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda app: setattr(app.deployments[0], "version", "v9-0"), "code or bound arguments (replicas are replaced)"),
        (set_option("num_replicas", 7), "num_replicas: 2 -> 7 (nothing restarts)"),
        (set_option("max_ongoing_requests", 9), "max_ongoing_requests: 5 -> 9 (replicas adopt it while they serve)"),
        (set_option("isolate_user_loop", True), "isolate_user_loop: False -> True (replicas are replaced)"),
        (
            set_option("placement_group_strategy", "SPREAD"),
            "placement_group_strategy: none -> SPREAD (replicas are replaced)",
        ),
        (
            lambda app: app.deployments[0].options.actor.resources.update(disk=1.0),
            "ray_actor_options (replicas are replaced)",
        ),
        (lambda app: app.deployments[0].callees.append("x"), "called deployments (nothing restarts)"),
        (lambda app: app.deployments[0].grpc_methods.add(full_name="/x/Y"), "gRPC methods (nothing restarts)"),
    ],
)
def test_every_change_is_named_with_its_effect(
    edit: Callable[[control_pb2.ApplicationSpec], object], line: str
) -> None:
    name = application("a").deployments[0].name
    assert changed(edit) == [f"a/{name}: {line}"]


@pytest.mark.parametrize("config", ['{"password": "sesame"}', '"sesame"', "3"])
def test_a_user_config_is_not_shown(config: str) -> None:
    (line,) = changed(set_option("user_config_json", config))
    assert line.endswith(": user_config (replicas adopt it while they serve)")


def test_a_target_capacity_changes_every_application() -> None:
    before = with_applications(EMPTY, [application("a"), application("b")], 1.0)
    after = with_applications(before, [application("a")], 2.0, target_capacity=50)
    assert changes_by_application(before, after) == {
        "a": ["a: target_capacity: 100 % -> 50 %"],
        "b": ["b: target_capacity: 100 % -> 50 %"],
    }


def test_other_descriptors_are_named_also_before_they_are_stored() -> None:
    """A preview stores nothing."""

    def edit(app: control_pb2.ApplicationSpec) -> None:
        app.descriptors = b"descriptors"

    assert changed(edit) == ["a: gRPC descriptors (nothing restarts)"]
