"""`package.module:attribute`: its parts, and the application or builder function that it names."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from mesh.declarative.builder_args import call_builder
from mesh.deployment import Application, Deployment
from mesh.handle import DeploymentHandle
from mesh.usercode import decorator_advice

_OWN_PACKAGE = Path(__file__).parent


def parse_import_path(import_path: object) -> tuple[str, str]:
    """Module and attribute. Raises ValueError."""
    if isinstance(import_path, str):
        module, _, attribute = import_path.rpartition(":" if ":" in import_path else ".")
        parts = (*module.split("."), *attribute.split("."))
        if module and attribute and all(part.isidentifier() for part in parts):
            return module, attribute
    raise ValueError(f"{import_path!r} is not MODULE:APP: write {_meant(import_path)}.")


def _meant(import_path: object) -> str:
    """The import path of a file, as "shop/app.py:app"; else an example."""
    file, _, attribute = str(import_path).partition(":")
    parts = file.removeprefix("./").removesuffix(".py").split("/")
    if attribute.isidentifier() and all(part.isidentifier() for part in parts):
        return f"{'.'.join(parts)}:{attribute}"
    return "for instance shop.app:app"


def load_application(import_path: str, args: Mapping[str, Any]) -> Application:
    """The bound application at the path, or the application that the builder at the path returns for `args`.

    Raises ImportError with the traceback of the user's code, ValueError or TypeError if there is no application,
    BadArgsError for arguments that do not fit the builder.
    """
    target = import_attribute(import_path)
    if isinstance(target, Application):
        if args:
            raise ValueError(f"{import_path} is a bound application and takes no arguments, got {', '.join(args)}.")
        return target
    if is_builder(target):
        return _built(import_path, target, args)
    kind = type(target).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    raise TypeError(
        f"{import_path} is {article} {kind}, not an application: name the result of .bind(...), or a function that "
        f"returns one. {_found_in(sys.modules[parse_import_path(import_path)[0]])}"
    )


def import_attribute(import_path: str) -> Any:
    """The object at the path. Raises ImportError, and ValueError if the module has no such attribute."""
    module_name, attribute = parse_import_path(import_path)
    module = _import(module_name)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            if ":" not in import_path and importlib.util.find_spec(import_path) is not None:
                raise ValueError(f"{import_path} is a module: name an object in it, for instance {import_path}:app.")
            raise ValueError(
                f"Module {module_name!r} has no {attribute!r}. {_found_in(module)}{_inside(module, attribute)}"
            )
        target = getattr(target, part)
    return target


def is_builder(target: object) -> bool:
    return callable(target) and not inspect.isclass(target) and not isinstance(target, Deployment | DeploymentHandle)


def _built(import_path: str, builder: Any, args: Mapping[str, Any]) -> Application:
    try:
        made = call_builder(builder, args)
    except (TypeError, ValueError) as error:
        if not _is_users(error):
            raise
        raise _failure(f"Building the application with {import_path} failed", error) from error
    except Exception as error:  # a user's function may raise anything
        raise _failure(f"Building the application with {import_path} failed", error) from error
    if not isinstance(made, Application):
        raise TypeError(f"{import_path} returned {made!r}, not an application: return the result of .bind(...).")
    return made


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ImportError(
                f"There is no module {error.name!r} in {sys.path[0]} or on Python's path. Name the directory it is in "
                "with --app-dir, or add it with runtime_env."
            ) from error
        raise _failure(f"Importing {module_name!r} failed", error) from error


def _found_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Application))
    return f"Applications in it: {', '.join(names) or 'none'}."


def _inside(package: ModuleType, attribute: str) -> str:
    """Advice for a package whose module of that name was meant."""
    path = f"{package.__name__}.{attribute}"
    is_module = hasattr(package, "__path__") and "." not in attribute and importlib.util.find_spec(path) is not None
    return f" Did you mean {path}:{attribute}?" if is_module else ""


def _failure(what: str, error: BaseException) -> ImportError:
    """An ImportError with the lines of user code that led to `error`, innermost last."""
    if isinstance(error, SyntaxError):  # shows the line itself
        return ImportError(f"{what}: {''.join(traceback.format_exception_only(error)).strip()}")
    lines = "".join(traceback.format_list(_users_frames(error.__traceback__)))
    advice = decorator_advice.advice_for(error)
    text = f"{error}. {advice}" if advice else str(error)
    return ImportError(f"{what}: {type(error).__name__}: {text}\n{lines}".rstrip())


def _is_users(error: BaseException) -> bool:
    """Whether user code raised the error, and not a check of the mesh."""
    return bool(_users_frames(error.__traceback__))


def _users_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return [
        frame
        for frame in traceback.extract_tb(trace)
        if Path(frame.filename).parent != _OWN_PACKAGE and "importlib" not in frame.filename
    ]
