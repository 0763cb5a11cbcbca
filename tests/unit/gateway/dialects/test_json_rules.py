"""What the log says about the rules of deployed methods."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.dialects.json_http.json_methods import JsonMethods, JsonTarget
from gateway.requests.routes import read_routes
from mesh.v1 import control_pb2
from tests.unit.gateway.dialects.json_ends import library_table


def with_equal_rules(table: control_pb2.RouteTable) -> control_pb2.RouteTable:
    """GetBook gets the rule of ListBooks too."""
    files = FileDescriptorSet.FromString(table.descriptor_sets[0].serialised)
    (service,) = [service for file in files.file for service in file.service if service.name == "Library"]
    methods = {method.name: method for method in service.method}
    methods["GetBook"].options.CopyFrom(methods["ListBooks"].options)
    table.descriptor_sets[0].serialised = files.SerializeToString()
    table.descriptor_sets[0].digest = "equal"
    for route in table.routes:
        route.descriptors_digest = "equal"
    return table


def test_rules_of_two_methods_for_the_same_paths_are_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    methods = JsonMethods()
    for _ in range(2):
        methods.set_routes(read_routes(with_equal_rules(library_table(books="/books"))))
        methods.find("GET", "/v1/books", None)
    (record,) = [each for each in caplog.records if "hides" in each.getMessage()]
    assert record.getMessage() == (
        "HTTP rule GET /v1/books of /kinds.Library/GetBook (application books) hides that of /kinds.Library/ListBooks"
        " (application books)"
    )


def test_of_two_methods_with_one_rule_the_one_that_was_deployed_first_is_served() -> None:
    table = with_equal_rules(library_table(books="/books"))
    for method in table.routes[0].grpc_methods:
        method.serving_order = 1 if method.full_name.endswith("ListBooks") else 2
    methods = JsonMethods()
    methods.set_routes(read_routes(table))
    found = methods.find("GET", "/v1/books", None)
    assert isinstance(found, JsonTarget)
    assert found.translation.full_name == "/kinds.Library/ListBooks"


def test_rules_of_two_applications_for_the_same_paths_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    table = library_table(usual="/usual")
    other = with_equal_rules(library_table(equal="/equal"))
    for method in other.routes[0].grpc_methods:
        method.serving_order = 2
    table.routes.extend(other.routes)
    table.descriptor_sets.extend(other.descriptor_sets)
    methods = JsonMethods()
    methods.set_routes(read_routes(table))
    methods.find("GET", "/v1/books", None)
    said = [each.getMessage() for each in caplog.records]
    hidden = "of /kinds.Library/ListBooks (application usual) hides that of /kinds.Library/GetBook (application equal)"
    assert f"HTTP rule GET /v1/books {hidden}" in said


def test_one_method_in_two_applications_is_no_conflict(caplog: pytest.LogCaptureFixture) -> None:
    methods = JsonMethods()
    methods.set_routes(read_routes(library_table(first="/first", second="/second")))
    methods.find("GET", "/v1/books", None)
    assert not caplog.records
