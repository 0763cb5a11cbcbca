"""The `deployment` decorator and what it makes: a `Deployment`, and with `.bind` an `Application`."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, Unpack, overload

from typing_extensions import ParamSpec, TypeVar

from mesh.config import DeploymentConfig, with_options
from mesh.options import option_checks
from mesh.options.deployments import deployment_options
from mesh.options.deployments.backpressure_options import BackpressureConfig
from mesh.options.deployments.deployment_options import DeploymentOptions
from mesh.options.logging_options import LoggingConfig
from mesh.usercode import user_code
from mesh.usercode.reconfigure_method import check_reconfigure
from mesh.usercode.served_methods import refuse_stub

if TYPE_CHECKING:
    # Bound to a constructor's parameter, an application becomes a handle: type checkers take it for one.
    from mesh.handle import DeploymentHandle as _HandleToBe
else:
    _HandleToBe = object

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Function")
BindArgs = ParamSpec("BindArgs", default=...)
Code = TypeVar("Code", default=Callable[..., Any])


_RUN_NAMES = frozenset({"deploy", "run", "serve", "start"})
"""What people try to call on a deployment or an application."""
_APPLICATION_ADVICE = {
    "remote": ": it does not run yet. Write handle = mesh.run(app), then handle.remote(...)",
    "bind": ": it is bound already. Hand it to mesh.run(app), or to the bind(...) of another deployment",
    "options": ": options come before bind. Write deployment.options(...).bind(...)",
    **dict.fromkeys(_RUN_NAMES, ": write mesh.run(app)"),
}


class Function(Protocol):
    """For type checkers: a function and no class.

    mypy finds that every callable might be one, and that an overload for classes behind one for functions is never used
    (`overload-cannot-match`). It is: mypy and pyright both know for every callable in a program which it is.
    """

    @property
    def __code__(self) -> CodeType: ...


class Application(_HandleToBe):
    """A deployment with its constructor arguments, among them the applications it calls. Made by `Deployment.bind`."""

    __slots__ = ("args", "deployment", "kwargs")

    def __init__(self, deployment: Deployment[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.deployment: Final = deployment
        self.args: Final = args
        self.kwargs: Final = kwargs

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(_no_attribute(self, name, _APPLICATION_ADVICE.get(name, "")))

    def __repr__(self) -> str:
        return f"Application(deployment={self.deployment.name!r})"


class Deployment(Generic[BindArgs, Code]):
    """An immutable class or function with the options it runs under. Made by the `deployment` decorator.

    For type checkers only: `BindArgs` are the parameters of the constructor, and `Code` is the class or function.
    """

    __slots__ = ("_config", "_func_or_class", "_name", "_user_configured_option_names", "_version")

    _func_or_class: Any
    _name: str
    _version: str | None
    _config: DeploymentConfig
    _user_configured_option_names: frozenset[str]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("A Deployment is made by the @mesh.deployment decorator, not by its constructor.")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"A Deployment cannot be called. Write {self.name}.bind(...) and hand the result to mesh.run(). "
            f"A test may call the code itself: {self.name}.func_or_class(...)."
        )

    def bind(self, *args: BindArgs.args, **kwargs: BindArgs.kwargs) -> Application:
        """An application: the deployment with the arguments of its constructor.

        Applications among the arguments are deployed with it; the constructor gets a DeploymentHandle for each.

        Raises:
            TypeError: The constructor does not take these arguments, or a deployment among them is not bound.
            ValueError: Arguments were given for a function, which has no constructor.
        """
        if not inspect.isclass(self._func_or_class) and (args or kwargs):
            raise ValueError(f"{self.name} is a function: it has no constructor, so .bind() takes no arguments.")
        _check_arguments(self.name, self._func_or_class, args, kwargs)
        _refuse_deployments(self.name, (*args, *kwargs.values()))
        return Application(self, args, kwargs)

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> NoReturn:
            advice = ""
            if name == "remote":
                advice = ": it does not run yet. Write handle = mesh.run(deployment.bind(...)), then handle.remote(...)"
            elif name in _RUN_NAMES:
                advice = ": write mesh.run(deployment.bind(...))"
            elif not name.startswith("_") and hasattr(self._func_or_class, name):
                advice = f". The decorated class has it: write deployment.func_or_class.{name}"
            raise AttributeError(_no_attribute(self, name, advice))

    @overload
    def options(
        self, func_or_class: None = None, **options: Unpack[DeploymentOptions]
    ) -> Deployment[BindArgs, Code]: ...
    @overload
    def options(self, func_or_class: F, **options: Unpack[DeploymentOptions]) -> Deployment[[], F]: ...
    @overload
    def options(  # type: ignore[overload-cannot-match]
        self, func_or_class: Callable[P, R], **options: Unpack[DeploymentOptions]
    ) -> Deployment[P, type[R]]: ...
    def options(self, func_or_class: Any = None, **options: Unpack[DeploymentOptions]) -> Deployment[..., Any]:
        """A copy with other options; those that are not given keep their values.

        Args:
            func_or_class: Other code to deploy with these options.
            **options: As for `mesh.deployment`.

        Raises:
            TypeError: An option is unknown or has the wrong type, or the code cannot be pickled.
            ValueError: An option has a wrong value or contradicts another.
        """
        deployment_options.check_names(options)
        return _make(func_or_class or self._func_or_class, options, self)

    @property
    def name(self) -> str:
        """By default the name of the class or function."""
        return self._name

    @property
    def version(self) -> str | None:
        """The value given to the decorator. None by default: every run replaces the replicas."""
        return self._version

    @property
    def func_or_class(self) -> Code:
        """The code itself, as it was before it was decorated."""
        code: Code = self._func_or_class
        return code

    @property
    def config(self) -> DeploymentConfig:
        """All options; `mesh.DeploymentConfig` explains each."""
        return self._config

    @property
    def num_replicas(self) -> int:
        """As it was asked for; where it autoscales, the load decides between the bounds."""
        return self._config.num_replicas

    @property
    def user_config(self) -> Any:
        """What `reconfigure` of each replica gets; None: it is not called."""
        return self._config.user_config

    @property
    def max_ongoing_requests(self) -> int:
        """Requests that one replica executes at a time."""
        return self._config.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        """Requests that may wait in each caller; -1: no limit."""
        return self._config.max_queued_requests

    @property
    def backpressure_config(self) -> BackpressureConfig | None:
        """None: a refused request is answered with 503."""
        return self._config.backpressure_config

    @property
    def ray_actor_options(self) -> dict[str, Any]:
        """A copy of them."""
        return dict(self._config.ray_actor_options)

    @property
    def logging_config(self) -> LoggingConfig | None:
        """None: that of the application, or of the mesh."""
        return self._config.logging_config

    @property
    def route_prefix(self) -> None:
        """Always None: a prefix belongs to `mesh.run`."""
        return

    @property
    def init_args(self) -> tuple[Any, ...]:
        """Always empty: `.bind(...)` gives an `Application`, which has them as `args`."""
        return ()

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Always empty, as `init_args`; an `Application` has `kwargs`."""
        return {}

    @property
    def user_configured_option_names(self) -> frozenset[str]:
        """Names of the options given to the decorator or to `.options()`."""
        return self._user_configured_option_names

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        raise TypeError(f"{self.name} is a deployment, not a class. Derive from the class: {self.name}.func_or_class.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deployment):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self._name, self._func_or_class))

    def __repr__(self) -> str:
        return f"Deployment(name={self.name})"

    def _identity(self) -> tuple[object, ...]:
        return self._name, self._version, self._config, self._func_or_class


class Decorator(Protocol):
    """For type checkers: what `mesh.deployment` returns when it is called with options only."""

    @overload
    def __call__(self, func_or_class: F, /) -> Deployment[[], F]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, func_or_class: Callable[P, R], /
    ) -> Deployment[P, type[R]]: ...


@overload
def deployment(_func_or_class: F, **options: Unpack[DeploymentOptions]) -> Deployment[[], F]: ...
@overload
def deployment(  # type: ignore[overload-cannot-match]
    _func_or_class: Callable[P, R], **options: Unpack[DeploymentOptions]
) -> Deployment[P, type[R]]: ...
@overload
def deployment(_func_or_class: str | None = None, **options: Unpack[DeploymentOptions]) -> Decorator: ...
def deployment(
    _func_or_class: Any = None, **options: Unpack[DeploymentOptions]
) -> Deployment[..., Any] | Callable[[Callable[..., Any]], Deployment[..., Any]]:
    """Turn a class or function into a Deployment. With or without parentheses.

    Args:
        _func_or_class: The code. A string is ignored, because the original API tolerates it.
        **options: `name` (by default the name of the class or function, no `#`), `version` (deprecated),
            `logging_config` and the fields of `mesh.DeploymentConfig`, which explains each.
            `num_replicas` may also be "auto": autoscaling between 1 and 100 replicas. Times are in seconds.

    Returns:
        The Deployment; a decorator that makes one when called without code.

    Raises:
        TypeError: An option is unknown or has the wrong type, or the code cannot be pickled.
        ValueError: An option has a wrong value or contradicts another.
    """
    deployment_options.check_names(options)

    def decorate(func_or_class: Callable[..., Any]) -> Deployment[..., Any]:
        return _make(func_or_class, options)

    return decorate(_func_or_class) if _func_or_class is not None and not isinstance(_func_or_class, str) else decorate


def instead_of(target: object) -> str:
    """What to write instead of running something that is not an application, with a space in front."""
    match target:
        case Deployment():
            return f" Write mesh.run({target.name}.bind(...))."
        case type() | FunctionType():
            return f" Write mesh.run(mesh.deployment({target.__name__}).bind(...))."
        case list() | tuple():
            return " For several applications write mesh.run_many([mesh.RunTarget(app, name=...), ...])."
        case str():
            return " Import it, or run it by `mesh run MODULE:APP`."
    return ""


def _make(
    func_or_class: Callable[..., Any], given: Mapping[str, Any], base: Deployment[..., Any] | None = None
) -> Deployment[..., Any]:
    if not callable(func_or_class) or isinstance(func_or_class, Deployment):
        advice = "" if callable(func_or_class) else " Options have names, as in @mesh.deployment(num_replicas=2)."
        raise TypeError(f"@mesh.deployment takes a class or a function, got {func_or_class!r}.{advice}")
    func_or_class = typing.get_origin(func_or_class) or func_or_class  # Box of Box[int]
    refuse_stub(func_or_class)
    options = dict(given)
    _refuse_route_prefix(options)
    made = object.__new__(Deployment)
    made._func_or_class = func_or_class
    made._name = _checked_name(options.pop("name", base.name if base else _own_name(func_or_class)))
    made._version = _checked_version(options.pop("version", None)) or (base.version if base else None)
    made._config = with_options(base.config if base else DeploymentConfig(), options)
    made._user_configured_option_names = frozenset(given) | (base.user_configured_option_names if base else frozenset())
    if base is None or func_or_class is not base.func_or_class:
        check_reconfigure(func_or_class, made.name)
        # Report code that cannot be pickled at its definition, not when it is run.
        user_code.dumps(func_or_class, made.name, deployed=func_or_class)
    return made


def _check_arguments(name: str, code: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises TypeError where a replica's constructor would."""
    if not inspect.isclass(code):
        return
    try:
        # A decorated constructor may take other arguments than the function that it wraps.
        signature = inspect.signature(code, follow_wrapped=False)
    except (TypeError, ValueError):  # a class that is written in C
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        names = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        takes = signature.replace(parameters=names, return_annotation=signature.empty)
        raise TypeError(f"{name}.bind(): {error}. The constructor takes {takes}.") from None


def _refuse_deployments(name: str, arguments: Iterable[object]) -> None:
    """Raises TypeError for what was to be an application: a constructor would get the deployment, not a handle."""
    for argument in arguments:
        match argument:
            case Deployment():
                raise TypeError(
                    f"{name}.bind(): the argument {argument!r} is not bound, so it would not run. Write "
                    f"{argument.name}.bind(...), for which the constructor gets a handle."
                )
            case MethodType(__func__=Deployment.bind, __self__=Deployment() as known):
                raise TypeError(
                    f"{name}.bind(): an argument is {known.name}.bind itself. Call it: {known.name}.bind(...)."
                )
            case list() | tuple():
                _refuse_deployments(name, argument)
            case dict():
                _refuse_deployments(name, argument.values())


def _no_attribute(owner: object, name: str, advice: str) -> str:
    return f"{type(owner).__name__!r} object has no attribute {name!r}{advice}"


def _own_name(func_or_class: Callable[..., Any]) -> str:
    name = getattr(func_or_class, "__name__", None)
    if name is None:
        raise TypeError(f"@mesh.deployment takes a class or a function, got {func_or_class!r}.")
    return str(name)


def _checked_name(name: object) -> str:
    name = option_checks.text("name", name)
    if not name or "#" in name:
        raise ValueError(f"name must not be empty or contain '#', got {name!r}.")
    return name


def _checked_version(version: object) -> str | None:
    if version is None:
        return None
    warnings.warn(
        "version= of a deployment is deprecated. Without it every run replaces the replicas.",
        DeprecationWarning,
        stacklevel=4,
    )
    return option_checks.text("version", version)


def _refuse_route_prefix(options: dict[str, Any]) -> None:
    if "route_prefix" in options:
        raise ValueError(
            "route_prefix can no longer be specified at the deployment level. Give it to mesh.run() instead."
        )
