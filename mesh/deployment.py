"""Owns the `deployment` decorator and what it makes: `Deployment`, and by `.bind` an `Application`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, overload

from mesh.config import DeploymentConfig, with_options
from mesh.options import option_checks
from mesh.options.autoscaling_options import AutoscalingConfig
from mesh.options.default import DEFAULT
from mesh.options.logging_options import LoggingConfig
from mesh.usercode import user_code

T = TypeVar("T")


_Unset: TypeAlias = DEFAULT
_UNSET: Final = DEFAULT.VALUE


class Application:
    """A deployment with its constructor arguments, among them the applications it calls. Made by `Deployment.bind`."""

    __slots__ = ("args", "deployment", "kwargs")

    def __init__(self, deployment: Deployment, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.deployment: Final = deployment
        self.args: Final = args
        self.kwargs: Final = kwargs

    def __repr__(self) -> str:
        return f"Application(deployment={self.deployment.name!r})"


class Deployment:
    """A class or function with the options under which it runs. Made by the `deployment` decorator, never changed."""

    __slots__ = ("_config", "_func_or_class", "_name", "_user_configured_option_names", "_version")

    _func_or_class: Callable[..., Any]
    _name: str
    _version: str
    _config: DeploymentConfig
    _user_configured_option_names: frozenset[str]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("A Deployment is made by the @mesh.deployment decorator, not by its constructor.")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"A Deployment cannot be called. Write {self.name}.bind(...) and hand the result to mesh.run()."
        )

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """The deployment with the arguments of its constructor. Applications in them arrive as DeploymentHandles."""
        if not inspect.isclass(self._func_or_class) and (args or kwargs):
            raise ValueError(f"{self.name} is a function: it has no constructor, so .bind() takes no arguments.")
        return Application(self, args, kwargs)

    def options(
        self,
        func_or_class: Callable[..., Any] | None = None,
        *,
        name: str | _Unset = _UNSET,
        version: str | _Unset | None = _UNSET,
        num_replicas: int | str | _Unset | None = _UNSET,
        route_prefix: str | _Unset | None = _UNSET,
        ray_actor_options: Mapping[str, Any] | _Unset | None = _UNSET,
        placement_group_bundles: list[dict[str, float]] | _Unset | None = _UNSET,
        placement_group_strategy: str | _Unset | None = _UNSET,
        max_replicas_per_node: int | _Unset | None = _UNSET,
        user_config: Any = _UNSET,
        max_ongoing_requests: int | _Unset = _UNSET,
        max_queued_requests: int | _Unset = _UNSET,
        autoscaling_config: AutoscalingConfig | Mapping[str, Any] | _Unset | None = _UNSET,
        graceful_shutdown_wait_loop_s: float | _Unset = _UNSET,
        graceful_shutdown_timeout_s: float | _Unset = _UNSET,
        health_check_period_s: float | _Unset = _UNSET,
        health_check_timeout_s: float | _Unset = _UNSET,
        logging_config: LoggingConfig | Mapping[str, Any] | _Unset | None = _UNSET,
        max_constructor_retry_count: int | _Unset = _UNSET,
        isolate_user_loop: bool | _Unset = _UNSET,
    ) -> Deployment:
        """A copy with other options; those that are not given keep their values."""
        given = _given(locals(), besides=("self", "func_or_class"))
        return _make(func_or_class or self._func_or_class, given, self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        """As given to the decorator; empty: every run replaces the replicas."""
        return self._version

    @property
    def func_or_class(self) -> Callable[..., Any]:
        return self._func_or_class

    @property
    def config(self) -> DeploymentConfig:
        return self._config

    @property
    def num_replicas(self) -> int:
        return self._config.num_replicas

    @property
    def user_config(self) -> Any:
        return self._config.user_config

    @property
    def max_ongoing_requests(self) -> int:
        return self._config.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        return self._config.max_queued_requests

    @property
    def ray_actor_options(self) -> dict[str, Any]:
        return dict(self._config.ray_actor_options)

    @property
    def user_configured_option_names(self) -> frozenset[str]:
        """Exactly the options that were given, here or in `.options()`."""
        return self._user_configured_option_names

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


@overload
def deployment(_func_or_class: Callable[..., Any]) -> Deployment: ...
@overload
def deployment(
    _func_or_class: str | None = None,
    *,
    name: str | _Unset = ...,
    version: str | _Unset | None = ...,
    num_replicas: int | str | _Unset | None = ...,
    route_prefix: str | _Unset | None = ...,
    ray_actor_options: Mapping[str, Any] | _Unset | None = ...,
    placement_group_bundles: list[dict[str, float]] | _Unset | None = ...,
    placement_group_strategy: str | _Unset | None = ...,
    max_replicas_per_node: int | _Unset | None = ...,
    user_config: Any = ...,
    max_ongoing_requests: int | _Unset = ...,
    max_queued_requests: int | _Unset = ...,
    autoscaling_config: AutoscalingConfig | Mapping[str, Any] | _Unset | None = ...,
    graceful_shutdown_wait_loop_s: float | _Unset = ...,
    graceful_shutdown_timeout_s: float | _Unset = ...,
    health_check_period_s: float | _Unset = ...,
    health_check_timeout_s: float | _Unset = ...,
    logging_config: LoggingConfig | Mapping[str, Any] | _Unset | None = ...,
    max_constructor_retry_count: int | _Unset = ...,
    isolate_user_loop: bool | _Unset = ...,
) -> Callable[[Callable[..., Any]], Deployment]: ...
def deployment(
    _func_or_class: Callable[..., Any] | str | None = None,
    *,
    name: str | _Unset = _UNSET,
    version: str | _Unset | None = _UNSET,
    num_replicas: int | str | _Unset | None = _UNSET,
    route_prefix: str | _Unset | None = _UNSET,
    ray_actor_options: Mapping[str, Any] | _Unset | None = _UNSET,
    placement_group_bundles: list[dict[str, float]] | _Unset | None = _UNSET,
    placement_group_strategy: str | _Unset | None = _UNSET,
    max_replicas_per_node: int | _Unset | None = _UNSET,
    user_config: Any = _UNSET,
    max_ongoing_requests: int | _Unset = _UNSET,
    max_queued_requests: int | _Unset = _UNSET,
    autoscaling_config: AutoscalingConfig | Mapping[str, Any] | _Unset | None = _UNSET,
    graceful_shutdown_wait_loop_s: float | _Unset = _UNSET,
    graceful_shutdown_timeout_s: float | _Unset = _UNSET,
    health_check_period_s: float | _Unset = _UNSET,
    health_check_timeout_s: float | _Unset = _UNSET,
    logging_config: LoggingConfig | Mapping[str, Any] | _Unset | None = _UNSET,
    max_constructor_retry_count: int | _Unset = _UNSET,
    isolate_user_loop: bool | _Unset = _UNSET,
) -> Deployment | Callable[[Callable[..., Any]], Deployment]:
    """Turn a class or function into a Deployment. With or without parentheses.

    The options are those of `mesh.config.DeploymentConfig`; `name` defaults to the class's or function's own. A string
    in the place of the class is ignored: the original API tolerates it.

    Raises TypeError or ValueError for wrong options, and TypeError for code that cannot be pickled.
    """
    given = _given(locals(), besides=("_func_or_class",))

    def decorate(func_or_class: Callable[..., Any]) -> Deployment:
        return _make(func_or_class, given)

    return decorate(_func_or_class) if _func_or_class is not None and not isinstance(_func_or_class, str) else decorate


def _given(arguments: Mapping[str, Any], besides: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not _UNSET and name not in besides}


def _make(func_or_class: Callable[..., Any], given: Mapping[str, Any], base: Deployment | None = None) -> Deployment:
    if not callable(func_or_class) or isinstance(func_or_class, Deployment):
        raise TypeError(f"@mesh.deployment takes a class or a function, got {func_or_class!r}.")
    options = dict(given)
    _refuse_route_prefix(options)
    made = object.__new__(Deployment)
    made._func_or_class = func_or_class
    made._name = _checked_name(options.pop("name", base.name if base else _own_name(func_or_class)))
    made._version = _checked_version(options.pop("version", None)) or (base.version if base else "")
    made._config = with_options(base.config if base else DeploymentConfig(), options)
    made._user_configured_option_names = frozenset(given) | (base.user_configured_option_names if base else frozenset())
    if base is None or func_or_class is not base.func_or_class:
        # Found here, where the class is written, and not when it is run.
        user_code.dumps(func_or_class, made.name)
    return made


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


def _checked_version(version: object) -> str:
    if version is None:
        return ""
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
