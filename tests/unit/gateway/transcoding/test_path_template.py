"""Path templates of google.api.http rules: their grammar, and what a path gives for a variable."""

from __future__ import annotations

import pytest

from gateway.transcoding.path_template import PathTemplate, TemplateVariable, decode_segment, parse_template


def values(template: str, path: str) -> dict[str, str]:
    parsed = parse_template(template)
    return {each.field_path: each.value(path.split("/")[1:]) for each in parsed.variables}


def test_a_template_of_literals_has_no_variables() -> None:
    assert parse_template("/v1/books") == PathTemplate(("v1", "books"))


def test_a_bare_variable_is_one_segment() -> None:
    assert parse_template("/v1/{name}") == PathTemplate(("v1", "*"), "", (TemplateVariable("name", 1, 2),))


def test_a_variable_may_span_segments_and_end_with_a_verb() -> None:
    parsed = parse_template("/v1/{book.name=shelves/*/books/**}:copy")
    assert parsed.segments == ("v1", "shelves", "*", "books", "**")
    assert parsed.verb == "copy"
    assert parsed.variables == (TemplateVariable("book.name", 1, None),)


def test_the_root_is_a_template() -> None:
    assert parse_template("/").segments == ("",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "/v1/",
        "//v1",
        "/v1/{",
        "/v1/}",
        "/v1/{}",
        "/v1/{name=}",
        "/v1/{1name}",
        "/v1/{a.}",
        "/v1/{a={b}}",
        "/v1/x{a}",
        "/v1/{a}x",
        "/v1/{a}{b}",
        "/v1/**/x",
        "/v1/{a=**}/x",
        "/v1/a*",
        "/v1/***",
        "/v1/{a}/{a}",
        "/v1/x:",
        "/v1/%zz",
    ],
)
def test_a_wrong_template_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"template|escape"):
        parse_template(text)


def test_a_single_segment_is_fully_decoded() -> None:
    assert values("/v1/{name}", "/v1/a%2Fb%20%C3%A4") == {"name": "a/b ä"}


def test_an_escaped_slash_stays_in_a_value_of_several_segments() -> None:
    assert values("/v1/{name=**}", "/v1/a%2fb/c%20d") == {"name": "a%2fb/c d"}
    assert values("/v1/{name=shelves/*}", "/v1/shelves/a%2Fb") == {"name": "shelves/a%2Fb"}


@pytest.mark.parametrize("text", ["%", "a%1", "%gg", "%C3", "%ff"])
def test_what_cannot_be_decoded_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"escape|decode"):
        decode_segment(text)


def test_a_prefix_moves_the_variables() -> None:
    moved = parse_template("/v1/{name}:go").below("/shop/eu")
    assert moved.segments == ("shop", "eu", "v1", "*")
    assert moved.verb == "go"
    assert moved.variables == (TemplateVariable("name", 3, 4),)
    assert parse_template("/v1").below("/") == parse_template("/v1")
