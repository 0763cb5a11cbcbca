"""Which application serves a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.route_prefixes import RoutePrefixes, decoded_path, method_without_root, without_root

SEGMENT = st.text("ab", min_size=1, max_size=3)
PREFIX = st.lists(SEGMENT, max_size=3).map(lambda segments: "/" + "/".join(segments))
PATH = st.tuples(PREFIX, st.sampled_from(["", "/", "/a", "b", "//"])).map("".join)


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop/items/1", "/shop"),
        ("/shop/admin/x", "/shop/admin"),
        ("/shop/administrator", "/shop"),
        ("/shopping", "/"),
        ("/", "/"),
        ("//shop", "/"),
    ],
)
def test_the_longest_prefix_that_ends_at_a_segment_wins(path: str, prefix: str) -> None:
    """The longest prefix that ends at a segment wins (item 203)."""
    prefixes = RoutePrefixes((each, each) for each in ("/", "/shop", "/shop/admin"))
    assert prefixes.find(path) == prefix


def test_without_a_root_other_paths_are_unknown() -> None:
    prefixes = RoutePrefixes([("/route", "app")])
    assert [prefixes.find(path) for path in ("/", "/routesuffix", "/rout", "")] == [None] * 4


@given(st.sets(PREFIX, max_size=6), PATH)
def test_the_answer_is_that_of_the_definition(prefixes: set[str], path: str) -> None:
    """The longest of all prefixes that equal the path or are followed by a slash in it (item 203)."""
    bare = [prefix.rstrip("/") for prefix in prefixes]
    fitting = [prefix for prefix in bare if path == prefix or path.startswith(f"{prefix}/")]
    found = RoutePrefixes((prefix, prefix.rstrip("/") or "root") for prefix in prefixes).find(path)
    assert found == (max(fitting, key=len) or "root" if fitting else None)


def test_paths_are_compared_decoded() -> None:
    assert decoded_path("/sh%6Fp/%C3%BC") == "/shop/ü"
    assert decoded_path("/a/%ff") == "/a/\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("path", ["/mesh/shop/x", "/shop/x"])
def test_a_root_path_may_be_cut_off_by_a_proxy_or_not(path: str) -> None:
    """A root path may be cut off by a proxy or not (item 54)."""
    assert without_root("/mesh", path) == "/shop/x"


def test_a_root_path_ends_at_a_segment() -> None:
    assert without_root("/mesh", "/meshed") == "/meshed"
    assert without_root("/mesh", "/mesh") == "/"
    assert without_root("/mesh", "/mesh/mesh") == "/mesh"
    assert without_root("", "/x") == "/x"


def test_a_service_of_the_name_of_the_root_path_keeps_its_methods_in_grpc() -> None:
    paths = [
        "/api/Method",
        "/api/pkg.Service/Method",
        "/api/shop/pkg.Service/Method",
        "/pkg.Service/Method",
        "/api",
        "",
    ]
    assert [method_without_root("/api", path) for path in paths] == [
        "/api/Method", "/pkg.Service/Method", "/shop/pkg.Service/Method", "/pkg.Service/Method", "/api", "",
    ]  # fmt: skip
