"""An unpicklable part is found wherever a class, function or argument hides it (item 75)."""

import pickle
import threading
from typing import Any

import pytest

from mesh.usercode import user_code
from mesh.usercode.pickle_trace import find
from mesh.usercode.user_code import UserCode

LOCK = threading.Lock()


class Holder:
    def __init__(self, content: object) -> None:
        self.content = content


def can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        ([1, LOCK], ["item 1"]),
        ({"a": 1, "b": (LOCK,)}, ["['b']", "item 0"]),
        (Holder({"x": LOCK}), ["Holder.content", "['x']"]),
        (Holder(1), []),
        (LOCK, []),
    ],
)
def test_the_way_to_the_culprit_is_named(value: object, trace: list[str]) -> None:
    assert find(value, can_be_pickled) == trace


def test_a_cycle_is_not_followed_without_end() -> None:
    first, second = Holder(None), Holder(None)
    first.content, second.content = second, [first, LOCK]
    assert find(first, lambda value: False)[0] == "Holder.content"


def test_a_large_list_is_not_searched_to_its_end() -> None:
    asked: list[object] = []

    def count(value: object) -> bool:
        asked.append(value)
        return True

    assert find([*range(10_000), LOCK], count) == []
    assert len(asked) < 1000


def test_variables_around_a_function_are_named() -> None:
    lock = threading.Lock()

    def predict() -> object:
        return lock

    with pytest.raises(TypeError, match=r"found at: variable 'lock' around predict"):
        user_code.dumps(predict, "predict")


def test_methods_of_a_class_are_named() -> None:
    lock = threading.Lock()

    class Model:
        def predict(self) -> object:
            return lock

    with pytest.raises(TypeError, match=r"found at: Model\.predict -> variable 'lock' around predict"):
        user_code.dumps(Model, "Model")


def test_arguments_are_named() -> None:
    code: UserCode = UserCode(Holder, (), {"content": {"lock": LOCK}})
    with pytest.raises(TypeError, match=r"found at: argument 'content' -> \['lock'\]"):
        user_code.pack(code)
    with pytest.raises(TypeError, match=r"found at: argument 2 -> item 0\)"):
        user_code.pack(UserCode(Holder, (1, [LOCK])))


def test_values_whose_pickling_raises_anything_are_found_too() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise LookupError("odd")

    with pytest.raises(TypeError, match=r"LookupError: odd \(found at: item 0\)"):
        user_code.dumps([Odd()], "list")


class Broken:
    """Nothing of it can be looked at."""

    def __reduce__(self) -> Any:
        raise UnspeakableError

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise LookupError("no attributes")

    def __repr__(self) -> str:
        raise LookupError("no text")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


def waits_for_a_name() -> Any:
    lock = threading.Lock()

    def deployed() -> Any:
        return lock, later

    if lock.locked():
        later = 1
    return deployed


@pytest.mark.parametrize("argument", [Broken(), {Broken(): LOCK}, [Broken()], waits_for_a_name()])
def test_what_cannot_be_searched_is_an_error_that_says_what_cannot_be_pickled(argument: object) -> None:
    """And not the error of the search, which came in its place."""
    with pytest.raises(TypeError, match="The arguments bound to sell cannot be pickled") as raised:
        user_code.pack(UserCode(sell, (argument,)))
    assert "found at: argument 1" in str(raised.value)


def sell(goods: object) -> None:
    """Takes anything."""
