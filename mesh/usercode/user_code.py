"""`UserCode`: what a replica runs, and its form as bytes.

The bytes are two pickles deep. The outer one holds plain data only: the search path of the process that packed, and the
inner pickle with the user's objects. A replica may have started with another job's search path, and the inner pickle
names modules; so the path is completed before the inner pickle is touched.

The deployed class or function is pickled by value, as if its module could not be imported: a replica that starts later
then runs the code that was deployed, whatever has become of the file. That of an installed package is imported instead.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import IO, Any

from mesh.cluster.ray_core import cloudpickle
from mesh.usercode import pickle_trace
from mesh.wire.outcome import describe

_OWN_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class UserCode:
    callable: Callable[..., Any]
    """The user's class or function, undecorated."""
    init_args: tuple[Any, ...] = ()
    init_kwargs: dict[str, Any] = field(default_factory=dict)
    servicer_functions: tuple[Callable[..., Any], ...] = ()
    """`add_XServicer_to_server` functions whose methods the callable serves besides those of its own servicer bases."""


Replace = Callable[[object], object]


def pack(code: UserCode, replace: Replace | None = None) -> bytes:
    """`code` as bytes. `replace` may put another object in the place of any that the init arguments reach.

    Raises TypeError saying what cannot be pickled.
    """
    parts = (
        dumps((code.callable, code.servicer_functions), _name(code), deployed=code.callable),
        pack_arguments(code, replace),
    )
    return pickle.dumps((_search_path(), parts), protocol=5)


def pack_arguments(code: UserCode, replace: Replace | None = None) -> bytes:
    """The bound arguments alone, a pickle. Raises TypeError saying what cannot be pickled."""
    arguments = code.init_args, code.init_kwargs
    return dumps(arguments, f"arguments bound to {_name(code)}", replace, labelled=_labelled(code))


def check_arguments(code: UserCode, replace: Replace) -> None:
    """Raises what `pack_arguments` raises. Keeps nothing, so that large arguments cost neither time nor memory."""
    arguments = code.init_args, code.init_kwargs
    _dump(arguments, _Nowhere(), f"arguments bound to {_name(code)}", replace, labelled=_labelled(code))


def unpack(data: bytes) -> UserCode:
    """The reverse of `pack`. Only for bytes that come from this mesh: unpickling executes code."""
    extend_search_path(data)
    _, (code, arguments) = pickle.loads(data)
    callable_, servicer_functions = pickle.loads(code)
    init_args, init_kwargs = pickle.loads(arguments)
    return UserCode(callable_, init_args, init_kwargs, servicer_functions)


def extend_search_path(data: bytes) -> None:
    """Let this process find the modules that the one which packed `data` found. Nothing of the user's is unpickled."""
    search_path, _ = pickle.loads(data)
    sys.path.extend(entry for entry in search_path if entry not in sys.path)


def pickled_arguments(data: bytes) -> bytes:
    """The bound arguments in what `pack` returned, still pickled."""
    _, (_, arguments) = pickle.loads(data)
    return bytes(arguments)


def dumps(
    value: object,
    what: str,
    replace: Replace | None = None,
    *,
    deployed: Callable[..., Any] | None = None,
    labelled: Mapping[str, object] | None = None,
) -> bytes:
    """Cloudpickle; `deployed` is the class or function to pickle by value. Raises TypeError naming `what`.

    `labelled`: the parts of the value, where they have names.
    """
    buffer = io.BytesIO()
    _dump(value, buffer, what, replace, deployed=deployed, labelled=labelled)
    return buffer.getvalue()


def _dump(
    value: object,
    file: IO[bytes],
    what: str,
    replace: Replace | None,
    *,
    deployed: Callable[..., Any] | None = None,
    labelled: Mapping[str, object] | None = None,
) -> None:
    try:
        _Pickler(file, replace, deployed).dump(value)
    except _RefusedError as refusal:
        raise refusal.reason from None
    except Exception as error:  # objects may raise anything from __reduce__
        raise TypeError(
            f"The {what} cannot be pickled, so no replica can get it: {describe(error)}"
            f"{pickle_trace.describe(value, functools.partial(_can_be_pickled, deployed=deployed), labelled)}. "
            "Create what cannot travel (locks, sockets, clients) in the constructor instead."
        ) from error


def _can_be_pickled(value: object, deployed: Callable[..., Any] | None) -> bool:
    try:
        _Pickler(_Nowhere(), None, deployed).dump(value)
    except Exception:  # objects may raise anything from __reduce__
        return False
    return True


class _Nowhere(io.BytesIO):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


class _RefusedError(Exception):
    """Carries an error of `replace` through the pickler, apart from errors of the pickled objects."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: IO[bytes], replace: Replace | None, deployed: Callable[..., Any] | None) -> None:
        super().__init__(file, protocol=5)
        self._replace = replace
        self._deployed = deployed if deployed is not None and _is_from_users_file(deployed) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType) and _is_part(obj, self._deployed):
            is_class = isinstance(obj, type)
            return (cloudpickle.cloudpickle._dynamic_class_reduce if is_class else self._dynamic_function_reduce)(obj)
        if self._replace is not None:
            try:
                substitute = self._replace(obj)
            except Exception as error:
                raise _RefusedError(error) from error
            if substitute is not obj:
                return _itself, (substitute,)
        return super().reducer_override(obj)


def _is_part(definition: type | FunctionType, whole: Callable[..., Any] | None) -> bool:
    """Whether it is `whole`, or was defined inside of it."""
    if whole is None or definition.__module__ != whole.__module__:
        return False
    return definition is whole or definition.__qualname__.startswith(f"{getattr(whole, '__qualname__', '')}.")


def _is_from_users_file(definition: Callable[..., Any]) -> bool:
    file = getattr(sys.modules.get(definition.__module__), "__file__", None)
    return file is not None and not is_installed(Path(file))


def is_installed(path: Path) -> bool:
    """Whether it belongs to Python or to an installed package: to the environment, and not to the application."""
    roots = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    path = path.resolve()
    return "site-packages" in path.parts or any(path.is_relative_to(root) for root in (*roots, _OWN_PACKAGE))


def _labelled(code: UserCode) -> dict[str, object]:
    by_position = {f"argument {number}": value for number, value in enumerate(code.init_args, start=1)}
    return by_position | {f"argument {name!r}": value for name, value in code.init_kwargs.items()}


def _itself(value: object) -> object:
    return value


def _name(code: UserCode) -> str:
    return getattr(code.callable, "__qualname__", repr(code.callable))


def _search_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]
