"""mesh.usercode.user_code: what a replica runs travels as bytes, with the search path it needs."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mesh.usercode.user_code import UserCode, dumps, pack, unpack


class Greeter:
    def __init__(self, word: str, *, loud: bool = False) -> None:
        self.text = word.upper() if loud else word


def _add_nothing(servicer: Any, server: Any) -> None: ...


def test_code_and_arguments_arrive_as_they_were() -> None:
    code = unpack(pack(UserCode(Greeter, ("hello",), {"loud": True}, (_add_nothing,))))
    assert code.callable(*code.init_args, **code.init_kwargs).text == "HELLO"
    assert [function.__name__ for function in code.servicer_functions] == ["_add_nothing"]


def test_functions_of_the_moment_travel_by_value() -> None:
    offset = 3
    assert unpack(pack(UserCode(lambda number: number + offset))).callable(1) == 4


def test_a_module_on_the_packing_process_s_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here_for_the_test.py").write_text("class Model:\n    answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here_for_the_test  # type: ignore[import-not-found]

    data = pack(UserCode(only_here_for_the_test.Model))
    program = (
        "import sys; from mesh.usercode.user_code import unpack; data = sys.stdin.buffer.read(); "
        "print(unpack(data).callable.answer)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"42"


def test_the_receiving_process_s_own_path_comes_first() -> None:
    data = pack(UserCode(Greeter, ("x",)))
    before = list(sys.path)
    unpack(data)
    assert sys.path[: len(before)] == before


def test_replacements_reach_any_depth_of_the_arguments() -> None:
    """Lists, dicts and attributes are searched (item 96)."""
    token = Greeter("inner")
    code = UserCode(Greeter, ([{"key": (token,)}],), {"holder": Greeter("outer"), "again": token})
    code.init_kwargs["holder"].text = token

    def replace(value: object) -> object:
        return "replaced" if value is token else value

    arrived = unpack(pack(code, replace))
    assert arrived.init_args == ([{"key": ("replaced",)}],)
    assert arrived.init_kwargs["holder"].text == "replaced"
    assert arrived.init_kwargs["again"] == "replaced"


def test_the_code_itself_is_not_searched_for_replacements() -> None:
    def refuse(value: object) -> object:
        raise AssertionError(value)

    assert unpack(pack(UserCode(lambda: Greeter("x")), refuse)).init_args == ()


def test_what_cannot_be_pickled_is_named() -> None:
    """The error says which deployment and which part (item 75)."""
    with pytest.raises(TypeError, match=r"arguments bound to Greeter cannot be pickled.*lock"):
        pack(UserCode(Greeter, (threading.Lock(),)))
    lock = threading.Lock()
    with pytest.raises(TypeError, match="The Model cannot be pickled"):
        dumps(lambda: lock, "Model")


def test_an_error_of_the_replacement_is_raised_as_it_is() -> None:
    def refuse(value: object) -> object:
        raise LookupError("not that one")

    with pytest.raises(LookupError, match="not that one"):
        pack(UserCode(Greeter, (Greeter("x"),)), refuse)
