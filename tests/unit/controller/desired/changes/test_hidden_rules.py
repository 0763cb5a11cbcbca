"""mesh.controller.desired.changes.hidden_rules: HTTP rules that hide others are a warning of the deploy."""

from __future__ import annotations

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from mesh.controller.desired.changes.hidden_rules import new_hidden_rules
from mesh.v1 import control_pb2
from tests.unit.controller.builders import application

EMPTY = control_pb2.DesiredState()


def state(**rules: dict[str, tuple[str, str]]) -> control_pb2.DesiredState:
    """Applications in the order in which they were deployed, with methods of package.Store and one rule of each."""
    applications = []
    for order, (name, by_method) in enumerate(rules.items(), 1):
        files = FileDescriptorSet()
        service = files.file.add(package="shop").service.add(name="Store")
        for method, (http_method, path) in by_method.items():
            rule = service.method.add(name=method).options.Extensions[annotations_pb2.http]
            setattr(rule, http_method, path)
        app = application(name)
        app.descriptors = files.SerializeToString()
        app.deployments[0].grpc_methods.extend(
            control_pb2.GrpcMethod(full_name=f"/shop.Store/{method}", serving_order=order) for method in by_method
        )
        applications.append(app)
    return control_pb2.DesiredState(applications=applications)


def test_two_methods_of_one_application_with_a_rule_for_the_same_paths() -> None:
    after = state(zoo={"Buy": ("get", "/v1/{name=shops/*}/x"), "Sell": ("get", "/v1/shops/{shop}/x")})
    assert new_hidden_rules(EMPTY, after, {}) == [
        "HTTP rule GET /v1/{name=shops/*}/x of /shop.Store/Buy (application zoo) hides that of /shop.Store/Sell"
        " (application zoo)"
    ]
    assert new_hidden_rules(after, after, {}) == []


def test_the_application_that_was_there_first_hides_the_rule_of_another_one() -> None:
    before = state(zoo={"Sell": ("post", "/v1/shops")})
    after = state(zoo={"Sell": ("post", "/v1/shops")}, art={"Buy": ("post", "/v1/shops")})
    (line,) = new_hidden_rules(before, after, {})
    assert "of /shop.Store/Sell (application zoo) hides that of /shop.Store/Buy (application art)" in line


@pytest.mark.parametrize(
    "after",
    [
        state(zoo={"Buy": ("get", "/v1/shops"), "Sell": ("post", "/v1/shops")}),
        state(zoo={"Buy": ("get", "/v1/{name}"), "Sell": ("get", "/v1/{name}:sell")}),
        state(zoo={"Buy": ("get", "/v1/{name=**}"), "Sell": ("get", "/v1/{name}")}),
        state(zoo={"Buy": ("get", "/v1/shops")}, art={"Buy": ("get", "/v1/shops")}),
    ],
    ids=["other HTTP methods", "a verb", "a shorter path", "one method of two applications"],
)
def test_rules_for_other_paths_hide_nothing(after: control_pb2.DesiredState) -> None:
    assert new_hidden_rules(EMPTY, after, {}) == []


def test_further_rules_of_a_method_count_too() -> None:
    after = state(zoo={"Buy": ("get", "/v1/a"), "Sell": ("get", "/v1/b")})
    files = FileDescriptorSet.FromString(after.applications[0].descriptors)
    (buy, _) = files.file[0].service[0].method
    buy.options.Extensions[annotations_pb2.http].additional_bindings.add().custom.kind = "GET"
    buy.options.Extensions[annotations_pb2.http].additional_bindings[0].custom.path = "/v1/b"
    after.applications[0].descriptors = files.SerializeToString()
    (line,) = new_hidden_rules(EMPTY, after, {})
    assert line.startswith("HTTP rule GET /v1/b of /shop.Store/Buy")


def test_rules_without_a_path_hide_nothing() -> None:
    """Gateways leave them out."""
    after = state(zoo={"Buy": ("get", "/v1/a"), "Sell": ("get", "/v1/b")})
    files = FileDescriptorSet.FromString(after.applications[0].descriptors)
    for method in files.file[0].service[0].method:
        method.options.Extensions[annotations_pb2.http].ClearField("get")
    after.applications[0].descriptors = files.SerializeToString()
    assert new_hidden_rules(EMPTY, after, {}) == []


def test_descriptors_that_are_stored_apart_are_read_by_their_digest() -> None:
    after = state(zoo={"Buy": ("get", "/v1/shops"), "Sell": ("get", "/v1/shops")})
    stored, after.applications[0].descriptors = after.applications[0].descriptors, b""
    after.applications[0].descriptors_digest = "d"
    assert len(new_hidden_rules(EMPTY, after, {"d": stored})) == 1
    assert new_hidden_rules(EMPTY, after, {}) == []
    assert new_hidden_rules(EMPTY, after, {"d": b"\xff"}) == []


def test_many_hidden_rules_are_a_few_lines() -> None:
    after = state(zoo={f"Buy{number}": ("get", f"/v1/{number // 2}") for number in range(20)})
    lines = new_hidden_rules(EMPTY, after, {})
    assert len(lines) == 6
    assert lines[-1] == "5 more HTTP rules are hidden by others: the log of a gateway has all."
