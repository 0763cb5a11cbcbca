"""mesh.usercode.user_failure: what user code raised is reported as text and never unpickled."""

import asyncio
import os
import pickle
import traceback

import pytest

from mesh.controller.actors.failure_text import readable
from mesh.usercode.user_failure import UserCodeError, errors_as_text


class Venomous(Exception):
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (4,)


class VenomousExit(BaseException):
    """So does this, and no `except Exception` catches it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (4,)


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


def failure_of(error: BaseException) -> UserCodeError:
    @errors_as_text
    async def fail() -> None:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise error from cause

    with pytest.raises(UserCodeError) as caught:
        asyncio.run(fail())
    return caught.value


@pytest.mark.parametrize("kind", [Venomous, VenomousExit])
def test_nothing_of_the_users_is_unpickled(kind: type[BaseException]) -> None:
    arrived = pickle.loads(pickle.dumps(failure_of(kind("bites"))))
    assert type(arrived) is UserCodeError
    assert str(arrived).endswith(f"{kind.__name__}: bites")


@pytest.mark.parametrize("is_cause", [False, True])
def test_a_text_that_is_not_in_unicode_can_be_sent(is_cause: bool) -> None:
    """As of a file whose name is not in UTF-8: Ray ends the process whose exception it cannot encode."""

    @errors_as_text
    async def fail() -> None:
        try:
            raise OSError("no file \udcff")
        except OSError as error:
            raise (RuntimeError("no model") if is_cause else ValueError("no file \udcff")) from error

    with pytest.raises(UserCodeError) as caught:
        asyncio.run(fail())
    assert "".join(traceback.format_exception(caught.value)).encode()
    assert str(caught.value) == ("RuntimeError: no model" if is_cause else "ValueError: no file \\udcff")
    lines = readable("".join(traceback.format_exception(caught.value))).splitlines()
    assert "in fail" in "".join(lines), "its traceback stays"


def test_a_traceback_through_a_file_whose_name_is_not_in_unicode_is_left_out() -> None:
    """The text of the error and its causes stay."""

    @errors_as_text
    async def fail() -> None:
        try:
            raise KeyError("the cause")
        except KeyError:
            exec(compile("raise ValueError('wrong')", "shop\udcff.py", "exec"))

    with pytest.raises(UserCodeError) as caught:
        asyncio.run(fail())
    lines = readable("".join(traceback.format_exception(caught.value)).encode().decode()).splitlines()
    assert lines[0] == "ValueError: wrong"
    assert "KeyError: 'the cause'" in lines


def test_it_reads_as_if_the_users_exception_had_been_raised() -> None:
    lines = readable("".join(traceback.format_exception(failure_of(ValueError("wrong"))))).splitlines()
    assert lines[0] == "ValueError: wrong"
    assert "KeyError: 'the cause'" in lines
    assert "    raise error from cause" in [line[:26] for line in lines]
    assert "user_failure.py" not in "".join(lines).replace("test_user_failure.py", "")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit("bye"), "SystemExit: bye"),
        (KeyboardInterrupt("bye"), "KeyboardInterrupt: bye"),
        (asyncio.CancelledError("bye"), "CancelledError: bye"),
        (Speechless(), "Speechless: <exception str() failed>"),
        (SyntaxError("bad", ("shop.py", 3, 1, "def")), "SyntaxError: bad (shop.py, line 3)"),
    ],
)
def test_odd_exceptions_are_reported_too(error: BaseException, text: str) -> None:
    assert str(failure_of(error)).endswith(text)


def test_what_is_no_failure_passes() -> None:
    @errors_as_text
    async def answer(number: int) -> int:
        return number

    assert asyncio.run(answer(3)) == 3
