"""mesh.declarative.builder_args: arguments become the type the builder asks for, or a message says which is wrong."""

import dataclasses
import functools
import pickle
from typing import Any

import pydantic
import pytest

from mesh.declarative.builder_args import BadArgsError, call_builder, parse_pairs, typed_args


@dataclasses.dataclass
class Plain:
    size: int
    names: list[str] = dataclasses.field(default_factory=list)
    is_loud: bool = False

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size must not be negative")


class Model(pydantic.BaseModel):
    size: int
    names: list[str] = []


def plain(args: Plain) -> Any:
    return args


def model(args: Model) -> Any:
    return args


def bare(args):  # type: ignore[no-untyped-def]
    return args


def mapping(args: dict[str, Any]) -> Any:
    return args


def complaint(builder: Any, args: dict[str, Any]) -> str:
    with pytest.raises(BadArgsError) as caught:
        call_builder(builder, args)
    return str(caught.value)


@pytest.mark.parametrize("builder", [bare, mapping])
def test_without_a_type_the_arguments_come_as_they_are(builder: Any) -> None:
    """An annotation decides whether arguments are converted (item 100)."""
    assert call_builder(builder, {"size": "3"}) == {"size": "3"}


def test_anything_that_takes_one_argument_is_a_builder() -> None:
    """A partial, a method and an object, whose annotations count as those of functions (item 100)."""

    def sized(unit: str, args: Plain) -> Any:
        return args, unit

    class Builder:
        def build(self, args: "Plain") -> Any:
            return args

        def __call__(self, args: Plain) -> Any:
            return args

    assert call_builder(functools.partial(sized, "m"), {"size": "3"}) == (Plain(3), "m")
    assert call_builder(Builder().build, {"size": "3"}) == Plain(3) == call_builder(Builder(), {"size": "3"})


def test_only_the_annotation_of_the_arguments_has_to_be_there() -> None:
    """Other names may be imported for type checkers only (item 100)."""

    def build(args: "Plain") -> "NowhereToBeFound":  # type: ignore[name-defined]  # noqa: F821
        return args

    assert call_builder(build, {"size": "3"}) == Plain(3)
    assert call_builder(functools.partial(build), {"size": "3"}) == Plain(3)


def test_a_dataclass_is_filled_also_from_text() -> None:
    args = {"size": "3", "names": ["a"], "is_loud": "true"}
    assert call_builder(plain, args) == Plain(size=3, names=["a"], is_loud=True)


@pytest.mark.parametrize(
    ("builder", "args", "typed"),
    [
        (plain, {"size": "3", "is_loud": "true"}, {"size": 3, "is_loud": True}),
        (model, {"size": "3", "names": ["a"]}, {"size": 3, "names": ["a"]}),
        (bare, {"size": "3"}, {"size": "3"}),
    ],
)
def test_files_get_the_types_that_the_builder_declares(
    builder: Any, args: dict[str, Any], typed: dict[str, Any]
) -> None:
    """Only arguments that were given, so that later defaults apply (item 100)."""
    assert typed_args(builder, args) == typed


def test_a_pydantic_model_is_filled_also_from_text() -> None:
    """Words of a command line fit models too (item 100)."""
    assert call_builder(model, {"size": "3"}) == Model(size=3)


@pytest.mark.parametrize(
    ("builder", "args", "expected"),
    [
        (plain, {"size": "x"}, "Wrong arguments for plain: size: Expected `int`, got `str`."),
        (plain, {}, "Wrong arguments for plain: Object missing required field `size`."),
        (plain, {"size": 1, "names": ["a", 2]}, "Wrong arguments for plain: names[1]: Expected `str`, got `int`."),
        (plain, {"size": -1}, "Wrong arguments for plain: size must not be negative."),
        (plain, {"sizes": 1}, "Wrong arguments for plain: sizes: no such field: did you mean size?"),
        (
            model,
            {"size": "x"},
            "Wrong arguments for model: size: Input should be a valid integer, unable to parse string as an integer, "
            "got 'x'.",
        ),
        (model, {}, "Wrong arguments for model: size: Field required."),
    ],
)
def test_wrong_arguments_are_named(builder: Any, args: dict[str, Any], expected: str) -> None:
    assert complaint(builder, args) == expected


def test_the_complaint_survives_the_way_from_a_task() -> None:
    with pytest.raises(BadArgsError) as caught:
        call_builder(plain, {"size": "x"})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.findings) == (str(caught.value), caught.value.findings)


def test_a_builder_takes_exactly_one_parameter() -> None:
    with pytest.raises(TypeError, match=r"takes 2 parameters\. A builder takes exactly one"):
        call_builder(lambda a, b: None, {})


def test_words_of_a_command_line() -> None:
    """Values may be text, lists and mappings (item 242)."""
    words = ["size=3", "name=a=b", "names=[a, b]", "of={x: 1}", "empty="]
    assert parse_pairs(words) == {"size": "3", "name": "a=b", "names": ["a", "b"], "of": {"x": 1}, "empty": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["size"], "'size' is not KEY=VALUE"),
        (["=3"], "'=3' is not KEY=VALUE"),
        (["a=1", "a=2"], "a is given twice: '1' and '2'"),
        (["a=[1"], "a=[1: this is neither a list nor a mapping in YAML"),
    ],
)
def test_words_that_are_no_arguments(words: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        parse_pairs(words)
    assert message in str(caught.value)
