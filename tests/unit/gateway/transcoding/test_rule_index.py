"""The look-up of a path among rules: precedence, verbs, methods, and its cost."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transcoding import rule_index
from gateway.transcoding.path_template import PathTemplate, decode_segment, parse_template
from gateway.transcoding.rule_index import Owner, RuleIndex


def index(*templates: str) -> RuleIndex[str]:
    return RuleIndex([(parse_template(each), "GET", each) for each in templates])


def found(rules: RuleIndex[str], path: str, method: str = "GET") -> str | None:
    result = rules.find(method, path)
    return result.best.rule if result is not None and result.best is not None else None


def test_a_literal_comes_before_a_variable_and_that_before_a_rest() -> None:
    rules = index("/v1/{name=**}", "/v1/{name}", "/v1/books")
    assert found(rules, "/v1/books") == "/v1/books"
    assert found(rules, "/v1/other") == "/v1/{name}"
    assert found(rules, "/v1/a/b") == "/v1/{name=**}"
    assert found(rules, "/v1") == "/v1/{name=**}"
    assert found(rules, "/v2") is None


def test_a_literal_that_leads_nowhere_hides_no_variable() -> None:
    rules = index("/v1/books/first", "/v1/{kind}/last")
    assert found(rules, "/v1/books/last") == "/v1/{kind}/last"


def test_the_first_segment_that_differs_decides() -> None:
    rules = index("/a/{x=**}", "/{y}/b")
    assert found(rules, "/a/b") == "/a/{x=**}"
    assert found(rules, "/c/b") == "/{y}/b"


def test_a_star_needs_a_segment_that_is_not_empty() -> None:
    rules = index("/v1/{name}")
    assert found(rules, "/v1/") is None
    assert found(rules, "/v1/x/") is None


def test_a_verb_is_part_of_the_template() -> None:
    rules = index("/v1/{name}", "/v1/{name}:copy", "/v1/{name=**}:move")
    assert found(rules, "/v1/x:copy") == "/v1/{name}:copy"
    assert found(rules, "/v1/x/y:move") == "/v1/{name=**}:move"
    assert found(rules, "/v1/x:other") == "/v1/{name}"
    result = rules.find("GET", "/v1/x:copy")
    assert result is not None
    assert result.segments == ["v1", "x"]


def test_a_path_without_rules_for_the_method_names_the_methods_that_there_are() -> None:
    template = parse_template("/v1/{name}")
    rules = RuleIndex(
        [(template, "GET", "get"), (template, "DELETE", "delete"), (parse_template("/v1/x"), "PUT", "put")]
    )
    result = rules.find("POST", "/v1/x")
    assert result is not None
    assert result.best is None
    assert result.methods == {"GET", "DELETE", "PUT"}
    assert found(rules, "/v1/x", "DELETE") == "delete"


def test_a_rule_for_any_method_comes_behind_one_for_the_method() -> None:
    template = parse_template("/v1/x")
    rules = RuleIndex([(template, "*", "any"), (template, "GET", "get")])
    assert found(rules, "/v1/x") == "get"
    assert found(rules, "/v1/x", "BREW") == "any"


def test_head_is_served_as_get_is_where_no_rule_is_for_it() -> None:
    """RFC 9110 §9.3.2."""
    rules = RuleIndex([(parse_template("/v1/x"), "GET", "get"), (parse_template("/v1/y"), "POST", "post")])
    assert found(rules, "/v1/x", "HEAD") == "get"
    assert found(rules, "/v1/y", "HEAD") is None
    template = parse_template("/v1/x")
    own = RuleIndex([(template, "GET", "get"), (template, "HEAD", "head"), (template, "*", "any")])
    assert found(own, "/v1/x", "HEAD") == "head"


def owned(*rules: tuple[str, str, int, str]) -> RuleIndex[tuple[str, str, int, str]]:
    """Rules with HTTP method, template, the order of their method and their application."""
    placed = [(parse_template(rule[1]), rule[0], rule) for rule in rules]
    return RuleIndex(placed, lambda rule: Owner(rule[2], rule[3]))


def test_of_equal_templates_that_of_the_application_serves_which_was_there_first() -> None:
    result = owned(("GET", "/v1/{a}", 2, "second"), ("GET", "/v1/{b}", 1, "first")).find("GET", "/v1/x")
    assert result is not None
    assert result.best is not None
    assert (result.best.owner, result.best.applications) == (Owner(1, "first"), {"first", "second"})
    assert result.best.rule[1] == "/v1/{b}"


@pytest.mark.parametrize("second", ["/v1/x:copy", "/v1/{a}:copy", "/{a=**}:copy", "/{a}/x:copy"])
@pytest.mark.parametrize(("http_method", "asked"), [("GET", "GET"), ("*", "GET"), ("GET", "HEAD"), ("*", "HEAD")])
def test_no_rule_of_another_application_takes_a_path_from_the_first(http_method: str, asked: str, second: str) -> None:
    """However exact it is: clients of the first application need not know of the second."""
    first = (http_method, "/{name=**}", 1, "first")
    later = (asked, second, 2, "second")
    result = owned(later, first).find(asked, "/v1/x:copy")
    assert result is not None
    assert result.best is not None
    assert result.best.rule == first


def test_what_the_first_application_adds_later_counts_as_of_it() -> None:
    """It has had the path since its first rule, and its own rules keep their precedence."""
    rules = owned(("GET", "/v1/{a}", 1, "first"), ("GET", "/v1/x", 2, "second"), ("GET", "/v1/x", 3, "first"))
    result = rules.find("GET", "/v1/x")
    assert result is not None
    assert result.best is not None
    assert result.best.rule == ("GET", "/v1/x", 3, "first")


def test_escapes_are_decoded_before_literals_are_compared() -> None:
    assert found(index("/v1/b%C3%BCcher", "/v1/{x}"), "/v1/b%C3%BC%63her") == "/v1/b%C3%BCcher"
    with pytest.raises(ValueError, match="escape"):
        index("/v1/{x}").find("GET", "/v1/%")


SEGMENTS = st.sampled_from(["a", "b", "c", "*"])
TEMPLATES = st.tuples(
    st.lists(SEGMENTS, max_size=4), st.sampled_from([[], [], ["**"]]), st.sampled_from(["", "", "v"])
).filter(lambda parts: parts[0] or parts[1])


def by_search(templates: list[PathTemplate], segments: list[str], verb: str) -> PathTemplate | None:
    """The rule by the definition of precedence: try each one."""
    rank = {"*": 1, "**": 2}

    def fits(template: PathTemplate) -> bool:
        fixed = [each for each in template.segments if each != "**"]
        if template.verb != verb or len(segments) < len(fixed):
            return False
        if len(segments) > len(fixed) and template.segments[-1:] != ("**",):
            return False
        return all(want == have or (want == "*" and have != "") for want, have in zip(fixed, segments, strict=False))

    # A template that ends comes before one that goes on with `**`.
    return min(
        filter(fits, templates),
        key=lambda template: [rank.get(each, 0) for each in template.segments],
        default=None,
    )


@pytest.mark.parametrize("states_kept_max", [4096, 3])
@given(
    parts=st.lists(TEMPLATES, min_size=1, max_size=8),
    paths=st.lists(
        st.tuples(st.lists(st.sampled_from(["a", "b", "c", "d", ""]), min_size=1, max_size=5), st.booleans())
    ),
)
def test_a_look_up_finds_what_a_search_through_all_rules_finds(
    states_kept_max: int, parts: list[tuple[list[str], list[str], str]], paths: list[tuple[list[str], bool]]
) -> None:
    templates = [PathTemplate((*fixed, *rest), verb) for fixed, rest, verb in parts]
    before, rule_index._STATES_KEPT_MAX = rule_index._STATES_KEPT_MAX, states_kept_max
    try:
        rules = RuleIndex([(each, "GET", each) for each in templates])
        for segments, has_verb in paths:
            path = "/" + "/".join(map(quote, segments)) + (":v" if has_verb else "")
            expected = by_search(templates, segments, "v") if has_verb else by_search(templates, segments, "")
            if has_verb and expected is None:
                expected = by_search(templates, [*segments[:-1], segments[-1] + ":v"], "")
            result = rules.find("GET", path)
            assert (result.best.rule if result and result.best else None) == expected
    finally:
        rule_index._STATES_KEPT_MAX = before


def test_strangers_cannot_make_the_index_grow() -> None:
    """The states that are kept come from the rules: other paths all lead to the same ones."""
    rules = index("/v1/{a}/x/{b}", "/v1/b/{c}")
    for number in range(1000):
        rules.find("GET", f"/v1/{number}/x/{number}")
        rules.find("GET", f"/{number}")
    assert rules._kept < 12


def test_rules_with_many_wildcards_keep_a_bounded_number_of_states() -> None:
    width = 14
    templates = ["/" + "/".join("a" if place == here else "*" for place in range(width)) for here in range(width)]
    rules = index(*templates)
    for number in range(2**13):
        segments = ["a" if number >> place & 1 else "b" for place in range(width)]
        expected = None if "a" not in segments else templates[segments.index("a")]
        assert found(rules, "/" + "/".join(segments)) == expected
    assert rules._kept <= rule_index._STATES_KEPT_MAX


@given(st.text())
def test_a_segment_decodes_to_what_was_encoded(text: str) -> None:
    assert decode_segment(quote(text, safe="")) == text
