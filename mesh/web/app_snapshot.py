"""The snapshot of an ASGI application at its decoration (item 104), and the application that a replica makes of it.

Functions that are methods of classes stay out of the pickle. Those of the decorated class travel with that class, so
that `super()` in them finds it, and the replica puts methods bound to its object in their places. Those of other
classes that share the application are left out (item 106).
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mesh.cluster.ray_core import cloudpickle
from mesh.wire.outcome import describe

Function = Callable[..., Any]

_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
"""FastAPI's routers have some. Nothing holds them while a module is imported."""

_PYDANTIC_STAND_INS = "pydantic._internal._mock_val_ser"
"""The module of stand-ins for incomplete models. Like Starlette's State, they recurse without end when unpickled."""


def take_snapshot(app: object, numbers: Mapping[int, int]) -> bytes:
    """The pickled application. `numbers`: the number that replaces each function in it, by the function's `id()`.

    Raises TypeError saying what cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _SnapshotPickler(buffer, numbers).dump(app)
    except Exception as error:  # objects may raise anything from __reduce__
        raise TypeError(
            "Failed to serialize the ASGI app: it cannot be pickled, so no replica can get it: "
            f"{describe(error)}. Make what cannot travel (locks, sockets, clients) in the lifespan of "
            "the application, or give mesh.ingress a function that builds the application."
        ) from error
    return buffer.getvalue()


def restore(snapshot: bytes, function_of: Callable[[int], Function]) -> Any:
    """A new application; `function_of` gives what takes the place of each number."""
    return _SnapshotUnpickler(io.BytesIO(snapshot), function_of).load()


class _SnapshotPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, numbers: Mapping[int, int]) -> None:
        super().__init__(file, protocol=5)
        self._numbers = numbers

    def persistent_id(self, obj: object) -> int | None:
        return self._numbers.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        make = _LOCKS.get(type(obj))
        if make is not None:
            return make, ()
        if _is_starlette_state(obj):
            return type(obj), (vars(obj)["_state"],)
        if type(obj).__module__ == _PYDANTIC_STAND_INS:
            _, slots = obj.__reduce_ex__(2)[2]
            return _stand_in, (type(obj), slots)
        return super().reducer_override(obj)


def _stand_in(cls: Any, slots: dict[str, Any]) -> Any:
    made = cls.__new__(cls)
    for name, value in slots.items():
        object.__setattr__(made, name, value)
    return made


def _is_starlette_state(obj: object) -> bool:
    """Whether it is `app.state`: until its own attribute is there again, unpickling it recurses without end."""
    datastructures = sys.modules.get("starlette.datastructures")
    return datastructures is not None and type(obj) is datastructures.State


class _SnapshotUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, function_of: Callable[[int], Function]) -> None:
        super().__init__(file)
        self._function_of = function_of

    def persistent_load(self, pid: Any) -> Function:
        return self._function_of(pid)
